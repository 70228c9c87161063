// Package lua holds the Redis scripts: one file for each transition of a session, atomic in the store.
//
// A file's header says what the script does, lists every KEYS and ARGV, what it returns and what it costs. Scripts run
// the same on Redis 7 and on miniredis: no cjson, no number of 15 digits or more turned into text but by string.format,
// every key in KEYS or derived from a prefix in ARGV with the same hash tag, reads before the first write, and a first
// write that a server at maxmemory permits.
//
// A line `--include name` stands for the file name.inc.lua: functions that several transitions share.
package lua

import (
	"embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

//go:embed *.lua
var files embed.FS

// The scripts, with their includes in place.
var (
	SessionCreate    = load("session_create")
	SessionUpdate    = load("session_update")
	SessionLease     = load("session_lease")
	SessionReport    = load("session_report")
	SessionCheck     = load("session_check")
	SessionTerminate = load("session_terminate")
	SessionGet       = load("session_get")
	SessionsSweep    = load("sessions_sweep")
	EventsAppend     = load("events_append")
	EventsRead       = load("events_read")
	FramesAppend     = load("frames_append")
	FramesRead       = load("frames_read")
	PendingPrune     = load("pending_prune")
	PendingRead      = load("pending_read")
	RateTake         = load("rate_take")
	RateGrant        = load("rate_grant")
	PlaceReserve     = load("place_reserve")
	PlaceRelease     = load("place_release")
	PlaceGive        = load("place_give")
	EpochTake        = load("epoch_take")
	SessionsEnd      = load("sessions_end")
	SessionsPurge    = load("sessions_purge")
	SessionsMend     = load("sessions_mend")
	CountsMend       = load("counts_mend")
	SessionsOwners   = load("sessions_owners")
	ReplicaBeat      = load("replica_beat")
	ReplicasRead     = load("replicas_read")
	CountsRead       = load("counts_read")
	MetaClaim        = load("meta_claim")
	ClockRead        = load("clock_read")
	StreamClaim      = load("stream_claim")
	StreamRelease    = load("stream_release")
	StreamStates     = load("stream_states")
	StreamOpen       = load("stream_open")
	StreamClose      = load("stream_close")
	SessionRecover   = load("session_recover")
	NoteKeep         = load("note_keep")
)

// names are those of the scripts, by their text.
var names = make(map[string]string)

// Name returns the name of a script of this package by its text, such as session_lease; empty for any other text.
func Name(text string) string { return names[text] }

// Names lists the names of all scripts, in alphabetical order.
func Names() []string { return slices.Sorted(maps.Values(names)) }

var include = regexp.MustCompile(`(?m)^--include (\w+)$`)

// load returns a script's text. A missing file is a mistake of this package that no caller could handle.
func load(name string) string {
	text := include.ReplaceAllStringFunc(read(name+".lua"), func(line string) string {
		return read(include.FindStringSubmatch(line)[1] + ".inc.lua")
	})
	names[text] = name
	return text
}

func read(file string) string {
	text, err := files.ReadFile(file)
	if err != nil {
		panic(fmt.Sprintf("lua: %v", err))
	}
	return string(text)
}
