package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/server"
)

// others are the other replicas, as a database would have this process know of them.
type others struct {
	joined chan router.Member
	told   chan string
}

func (o *others) Join(ctx context.Context, m router.Member) error {
	o.joined <- m
	<-ctx.Done()
	return nil
}

func (o *others) Tell(_ context.Context, hint string) error {
	o.told <- hint
	return nil
}

// A replica works for all while it leads, and otherwise tells the leader.
func TestAReplicaWorksForAllOnlyWhileItLeads(t *testing.T) {
	bubble(t, testAReplicaWorksForAllOnlyWhileItLeads)
}

func testAReplicaWorksForAllOnlyWhileItLeads(t *testing.T) {
	w := newWorld(t, plainRule)
	o := &others{joined: make(chan router.Member, 1), told: make(chan string, 100)}
	w.Start(slowly, func(c *server.Config) { c.Replicas, c.Name = o, "this" })
	m := <-o.joined

	first := w.Queue("self-hosted", "linux")
	time.Sleep(time.Minute)
	if j, err := w.Store.Job(t.Context(), first); err != nil || j.State != router.Queued {
		t.Fatalf("without leading, job %d became %s, %v", first, j.State, err)
	}
	if got := <-o.told; got != "due" {
		t.Errorf("the leader was told %q", got)
	}

	for range 2 { // terms
		ctx, end := context.WithCancel(router.WithTerm(t.Context(), 0))
		ended := make(chan error, 1)
		go func() { ended <- m.Lead(ctx) }()
		second := w.Queue("self-hosted", "linux")
		w.Await(first, in(router.Completed))
		w.Await(second, in(router.Completed))
		end()
		if err := <-ended; err != nil {
			t.Errorf("its term ended with %v", err)
		}
		first = w.Queue("self-hosted", "linux")
		time.Sleep(time.Minute)
		if j, err := w.Store.Job(t.Context(), first); err != nil || j.State != router.Queued {
			t.Errorf("after its term, job %d became %s, %v", first, j.State, err)
		}
	}
}

func TestReadinessSaysWhatIsWrongWithTheReplicas(t *testing.T) {
	bubble(t, testReadinessSaysWhatIsWrongWithTheReplicas)
}

func testReadinessSaysWhatIsWrongWithTheReplicas(t *testing.T) {
	w := newWorld(t, plainRule)
	o := &others{joined: make(chan router.Member, 1), told: make(chan string, 100)}
	w.Start(slowly, func(c *server.Config) { c.Replicas, c.Name = o, "this" })
	m := <-o.joined
	for name, tt := range map[string]struct {
		seen func(self router.Replica) []router.Replica // nil: nothing is seen
		want []router.Cause
	}{
		"all is well": {func(self router.Replica) []router.Replica {
			return []router.Replica{self, {Name: "other", RulesHash: self.RulesHash, Leads: true}}
		}, nil},
		"cut off": {nil, []router.Cause{router.CauseNoLeader}},
		"no leader": {func(self router.Replica) []router.Replica {
			return []router.Replica{self, {Name: "other", RulesHash: self.RulesHash}}
		}, []router.Cause{router.CauseNoLeader}},
		"a wrong clock": {func(self router.Replica) []router.Replica {
			self.Ahead = time.Minute
			return []router.Replica{self, {Name: "other", RulesHash: self.RulesHash, Leads: true}}
		}, []router.Cause{router.CauseClock}},
		"other rules": {func(self router.Replica) []router.Replica {
			return []router.Replica{self, {Name: "other", RulesHash: "of others", Leads: true}}
		}, []router.Cause{router.CauseRulesDiffer}},
		"a silent Nomad": {func(self router.Replica) []router.Replica {
			return []router.Replica{self, {Name: "other", RulesHash: self.RulesHash, Leads: true, Leading: &router.Leading{SilentSince: time.Now().Add(-time.Minute)}}}
		}, []router.Cause{router.CauseSilent}},
		"lost deliveries": {func(self router.Replica) []router.Replica {
			return []router.Replica{self, {Name: "other", RulesHash: self.RulesHash, Leads: true, Leading: &router.Leading{Lost: 3, LostAt: time.Now()}}}
		}, []router.Cause{router.CauseLostDelivery}},
	} {
		for range 3 * 60 { // it was so for three minutes
			if tt.seen != nil {
				self := m.Facts()
				self.Self = true
				m.Seen(tt.seen(self))
			}
			time.Sleep(time.Second)
		}
		if s := w.App.RulesStatus(); s.Differ() != (name == "other rules") || tt.seen != nil && len(s.Replicas) != 2 {
			t.Errorf("%s: the rules are %+v", name, s)
		}
		resp, err := w.Net.Once().Get("http://" + w.App.AdminAddr() + "/readyz")
		must(t, err)
		var ready server.Readiness
		must(t, json.NewDecoder(resp.Body).Decode(&ready))
		resp.Body.Close()
		var got []router.Cause
		for _, one := range ready.Troubles {
			got = append(got, one.Cause)
		}
		if !slices.Equal(got, tt.want) || (resp.StatusCode == http.StatusOK) == (name == "a wrong clock") {
			t.Errorf("%s: %d, troubles %+v, want %v", name, resp.StatusCode, ready.Troubles, tt.want)
		}
	}
}
