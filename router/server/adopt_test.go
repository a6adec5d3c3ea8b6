package server_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"

	"switchyard/router"
	"switchyard/router/server"
)

// gatedHub lists no runs until it is let.
type gatedHub struct {
	*hub
	asked, open chan struct{}
}

func (g gatedHub) Unfinished(ctx context.Context, repo router.Repo, calls int, each func(router.Delivery) error) (router.Unfinished, error) {
	close(g.asked)
	<-g.open
	return g.hub.Unfinished(ctx, repo, calls, each)
}

// claimedStore reports claims whose token it does not know.
type claimedStore struct {
	Store
	unknown chan struct{} // of size 1
}

func (s claimedStore) Claimant(ctx context.Context, tokenHash [32]byte) (router.Claimed, error) {
	c, err := s.Store.Claimant(ctx, tokenHash)
	if err != nil {
		select {
		case s.unknown <- struct{}{}:
		default:
		}
	}
	return c, err
}

// The database is deleted while the second runner of a job starts: it claims
// before the router knows its job again, and no other runner is started.
func TestWithTheDatabaseDeletedARunnerThatClaimsIsKnownInTime(t *testing.T) {
	bubble(t, testWithTheDatabaseDeletedARunnerThatClaimsIsKnownInTime)
}
func testWithTheDatabaseDeletedARunnerThatClaimsIsKnownInTime(t *testing.T) {
	const url = "http://router.test"
	job := delivery(1, "queued", "self-hosted", "linux").Job
	earlier := func(try int, token router.Secret) router.StartRequest {
		j := job
		j.Try = try
		return router.StartRequest{Runner: router.Runner{ID: j.RunnerID(), JobID: 1, Try: try}, Job: j, ClaimURL: url + router.ClaimPath, ClaimToken: token}
	}
	var mu sync.Mutex
	var asked []string
	nomad := &cluster{
		jobs: map[string]router.StartRequest{"gha-1-1": earlier(1, "one"), "gha-1-2": earlier(2, "two")},
		dead: map[string]bool{"gha-1-1": true},
		within: func(r router.StartRequest) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.Runner.ID)
		},
	}
	h := gatedHub{&hub{}, make(chan struct{}), make(chan struct{})}
	h.index.runs = map[string][]router.Delivery{"acme/web": {says(1, "queued", "self-hosted", "linux")}}
	st := claimedStore{openStore(t), make(chan struct{}, 1)}
	r := start(t, st, nomad, h.hub, func(c *server.Config) { c.GitHub, c.PublicURL = h, url })
	<-h.asked
	answer := make(chan int)
	go func() {
		status, body := r.Claim("two")
		if body == "" {
			status = 0
		}
		answer <- status
	}()
	<-st.unknown
	close(h.open)
	if status := <-answer; status != http.StatusOK {
		t.Errorf("claim = %d, want 200 and a configuration", status)
	}
	if j := r.await(1, in(router.Dispatched)); j.Try != 2 || j.Failures != 0 {
		t.Errorf("the job is at try %d after %d failures, want 2 and none", j.Try, j.Failures)
	}
	mu.Lock()
	defer mu.Unlock()
	if slices.Contains(asked, "gha-1-1") || slices.Contains(asked, "gha-1-3") || nomad.count() != 2 {
		t.Errorf("Nomad was asked for %v", asked)
	}
}
