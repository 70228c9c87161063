package settings

import (
	"log/slog"
	"net/url"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// Settings are the values of all supported settings, as [Load] returns them: complete and valid.
type Settings struct {
	Listen      string // host:port
	AdminListen string // host:port, empty: no admin port
	ReplicaID   string

	Redis string // a URL; it may hold a password and must not be logged
	// RedisPasswords names the files that hold what the URL does not.
	RedisPasswords redisstore.PasswordFiles
	// RedisTLS names the files that a rediss URL may need.
	RedisTLS redisstore.TLSFiles
	Prefix   string
	// Partitions is how many slices the sessions are cut into; 0: the default of the topology.
	Partitions int
	// WaitReplicas is how many Redis replicas must confirm a session's creation, activation or end.
	WaitReplicas int

	Upstreams      []Upstream // distinct names
	AllowedOrigins []string
	AllowedHosts   []string
	MaxBody        int64 // bytes
	MaxHeader      int64 // bytes

	HeaderTimeout         time.Duration // for sending a request's header
	BodyTimeout           time.Duration // for sending its body
	ConnectionIdleTimeout time.Duration // of a connection without a request
	ReplicaMaxRequests    int           // waiting for an answer at one replica; 0: any number
	ReplicaMaxBytes       int64         // of bodies in memory at one replica; 0: any size
	ReplicaMaxStreams     int           // open at one replica; 0: any number

	UpstreamCheckInterval  time.Duration // 0: endpoints are not checked
	Recover                bool          // whether sessions that their upstream has lost are initialized anew
	FollowInterval         time.Duration // between two looks at streams that other replicas read
	StreamKeepAlive        time.Duration // the longest silence of a stream; 0: any
	Recording              record.Mode   // how much is recorded
	RecordingRedact        []string      // what is not, as record.ParseRules reads it
	RecordingRedactHeaders []string      // what is not either, as record.ParseHeaders reads it
	Auth                   auth.Config   // without Paths
	DrainDelay             time.Duration // how long a stopping replica serves on while not ready
	DrainTimeout           time.Duration // how long stopping may take, DrainDelay included

	LogLevel  slog.Level
	LogFormat LogFormat

	Cluster cluster.Config

	Sweeper          bool          // whether this replica may lead
	SweepInterval    time.Duration // between two sweeps of the leader
	SweepBatch       int           // sessions of a kind in one script
	LeaderTTL        time.Duration // how long a dead leader goes on being one
	EmergencyPercent int           // of a server's memory limit, above which sessions go early; 0: never
	AuditStream      int           // audit records kept in the store; 0: only logged
}

// Upstream is one configured MCP server.
type Upstream struct {
	Name string // empty: served at /mcp; else at /<name>/mcp
	// URL is the first endpoint, or with dns+ before its scheme all addresses of its host.
	URL  *url.URL
	More []*url.URL // further endpoints
}

// LogFormat is how log lines are written.
type LogFormat string

// The log formats.
const (
	LogAuto LogFormat = "auto" // text on a terminal, else JSON
	LogJSON LogFormat = "json"
	LogText LogFormat = "text"
)

// Scope is the set of commands a setting matters to.
type Scope int

// The scopes. Every command accepts every setting from file and environment, so that one configuration serves them all;
// the scope decides which flags a command has.
const (
	ScopeServe Scope = iota // the serve command
	ScopeStore              // every command that talks to the store, serve included
)

// Kind is the form of a setting's value.
type Kind string

// The kinds of value.
const (
	KindText     Kind = "text"
	KindAddress  Kind = "host:port"
	KindURL      Kind = "URL"
	KindFile     Kind = "file"
	KindUpstream Kind = "[name=]URL" // repeatable; in the environment separated by spaces. Commas separate its endpoints
	KindList     Kind = "list"       // repeatable; separated by commas or spaces
	KindCount    Kind = "number"
	KindRate     Kind = "rate"
	KindSize     Kind = "size"
	KindDuration Kind = "duration"
	KindChoice   Kind = "choice"
	KindSwitch   Kind = "switch" // true or false; the flag alone means true
)
