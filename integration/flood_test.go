package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	floodAttackers = 10
	// floodPace is what each attacker leaves between two attempts: 50 a second, five times what one principal may.
	floodPace = 20 * time.Millisecond
	// floodIdle is when a session that is not used may be evicted: soon, but later than the store hears of use.
	floodIdle = "4s"
	// floodUse is what a bystander leaves between two requests: well below what one session may.
	floodUse = 25 * time.Millisecond
	// floodRounds alternate with as many without a flood, so that what else the machine does is in both.
	floodRounds   = 4
	floodRoundFor = 2 * time.Second
	// floodCap is soon reached.
	floodCap = 40
	// floodBound is how much longer a bystander's slowest hundredth of requests may take; the test fails at floodSlack times that, for
	// the machine is also the attackers'.
	floodBound = 2
	floodSlack = 3
)

// Principals that open sessions as fast as they can, up to the cap and beyond, end no session that is in use, and slow down nobody
// else much. It runs by itself, for it measures.
func TestAFloodOfSessionsHarmsNobodyElse(t *testing.T) {
	i := newIssuer(t)
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL(),
		asksFor(i, "--max-sessions", strconv.Itoa(floodCap), "--evict-min-idle", floodIdle)...)
	// Past the front, which is no part of the product and shares the machine.
	var urls []string
	for _, r := range d.Replicas {
		urls = append(urls, r.URL())
	}
	var victims []*bystander
	for n := range 5 {
		bearer := i.Token(fmt.Sprint("bystander-", n))
		victims = append(victims, &bystander{
			urls:    urls,
			request: post("", openSessionAs(t, d.URL(), bearer), pingBody).as(bearer),
			client:  &http.Client{Transport: &http.Transport{}, Timeout: answerTimeout},
		})
	}
	t.Cleanup(func() {
		for _, v := range victims {
			v.client.CloseIdleConnections()
		}
	})
	var calm, flooded []time.Duration
	var attempts, admitted atomic.Int64
	for range floodRounds {
		calm = append(calm, ping(t, victims, floodRoundFor)...)
		ctx, stop := context.WithCancel(t.Context())
		var attackers sync.WaitGroup
		for n := range floodAttackers {
			bearer := i.Token(fmt.Sprint("attacker-", n))
			attackers.Go(func() {
				floodSessions(ctx, post(urls[n%len(urls)], "", initializeBody("2025-11-25")).as(bearer), &attempts, &admitted)
			})
		}
		flooded = append(flooded, ping(t, victims, floodRoundFor)...)
		stop()
		attackers.Wait()
	}
	before, during := hundredth(calm), hundredth(flooded)
	t.Logf("%d attackers tried to open %d sessions and opened %d under a cap of %d; of 5 bystanders' %d and %d requests the slowest hundredth took %v without and %v during the flood: %.1f times, the bound is %d",
		floodAttackers, attempts.Load(), admitted.Load(), floodCap, len(calm), len(flooded), before, during, float64(during)/float64(before), floodBound)
	if admitted.Load() < floodCap {
		t.Errorf("only %d sessions were opened: the cap was never reached, and the test has shown nothing", admitted.Load())
	}
	if during > floodBound*floodSlack*before {
		t.Errorf("the slowest hundredth took %v during the flood, %v without", during, before)
	}
	for n, v := range victims {
		if v.failed != "" {
			t.Errorf("bystander %d: %s", n, v.failed)
		}
	}
}

// bystander uses its session all the time, at one replica after the other.
type bystander struct {
	urls    []string
	sent    int
	request rawRequest
	client  *http.Client // keeps its connections
	failed  string
}

// ping has all bystanders use their sessions for a time, and returns how long each request took.
func ping(t *testing.T, all []*bystander, d time.Duration) (took []time.Duration) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	var (
		mu      sync.Mutex
		running sync.WaitGroup
	)
	for _, b := range all {
		running.Go(func() {
			for pause(ctx, floodUse); ctx.Err() == nil; pause(ctx, floodUse) {
				begun := time.Now()
				status, err := b.use(t.Context())
				mu.Lock()
				took = append(took, time.Since(begun))
				mu.Unlock()
				if b.failed == "" && (err != nil || status != http.StatusOK) {
					b.failed = fmt.Sprintf("a request was answered with %d, %v", status, err)
				}
			}
		})
	}
	running.Wait()
	return took
}

func (b *bystander) use(ctx context.Context) (int, error) {
	b.sent++
	request, err := http.NewRequestWithContext(ctx, b.request.method, b.urls[b.sent%len(b.urls)], strings.NewReader(b.request.body))
	if err != nil {
		return 0, err
	}
	request.Header = b.request.header
	response, err := b.client.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// floodSessions opens sessions until ctx ends.
func floodSessions(ctx context.Context, initialize rawRequest, attempts, admitted *atomic.Int64) {
	for ctx.Err() == nil {
		got, err := initialize.send(ctx)
		if err != nil {
			return
		}
		attempts.Add(1)
		if got.status == http.StatusOK {
			admitted.Add(1)
		}
		pause(ctx, floodPace)
	}
}

// hundredth is what all but a hundredth of them do not exceed.
func hundredth(took []time.Duration) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100].Round(10 * time.Microsecond)
}
