package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
	"switchyard/router/store/storetest"
)

// A member is a replica of a test.
type member struct {
	store *store.Store
	facts router.Replica
	begun chan context.Context // receives the context of each term that begins
	heard chan string
	left  chan struct{} // closed when Join has returned
	stop  func() error  // leaves, and returns what Join did

	mu    sync.Mutex
	seen  []router.Replica
	ahead time.Duration // its clock
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// join makes a replica with this name.
func join(t *testing.T, url, name, publicURL string, keys ...string) *member {
	t.Helper()
	m := &member{store: openPostgres(t, url), facts: router.Replica{Name: name, PublicURL: publicURL, Nomad: router.NomadCluster{Keys: keys}}, begun: make(chan context.Context, 10), heard: make(chan string, 10), left: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	go func() {
		defer close(m.left)
		err = m.store.Join(ctx, router.Member{
			Now: func() time.Time {
				m.mu.Lock()
				defer m.mu.Unlock()
				return time.Now().Add(m.ahead)
			},
			Facts: func() router.Replica { return m.facts },
			Seen: func(all []router.Replica) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.seen = all
			},
			Hear: func(hint string) {
				if hint != "" {
					m.heard <- hint
				}
			},
			Lost: func(err error) { t.Logf("%s: %v", name, err) },
			Lead: func(ctx context.Context) error {
				m.begun <- ctx
				<-ctx.Done()
				return nil
			},
		})
	}()
	m.stop = sync.OnceValue(func() error {
		cancel()
		<-m.left
		return err
	})
	t.Cleanup(func() { _ = m.stop() })
	return m
}

// sees waits until the replica sees these, the oldest first; the leader with a star.
func (m *member) sees(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, strings.Join(want, " "), func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		var got []string
		for _, r := range m.seen {
			name := r.Name
			if r.Leads {
				name += "*"
			}
			got = append(got, name)
		}
		return slices.Equal(got, want)
	})
}

func (m *member) receive(ctx context.Context, id int64) error {
	return errOf(m.store.Receive(ctx, storetest.NewDelivery(id, "queued", "queued")))
}

func TestOneReplicaLeadsAndTheDatabaseTakesNoChangesOfAnEarlierTerm(t *testing.T) {
	t.Parallel()
	url := postgrestest.URL(t)
	one := join(t, url, "one", "http://here")
	first := <-one.begun
	two := join(t, url, "two", "http://here")
	for _, m := range []*member{one, two} {
		m.sees(t, "one*", "two")
	}
	must(t, one.receive(first, 1))
	must(t, two.receive(t.Context(), 2)) // of no term: a delivery
	must(t, one.store.Tell(t.Context(), "due"))
	if got := <-two.heard; got != "due" {
		t.Errorf("two heard %q", got)
	}

	must(t, one.stop())
	second := <-two.begun
	if got, before := router.Term(second), router.Term(first); got <= before {
		t.Errorf("the second term is %d, the first was %d", got, before)
	}
	if err := one.receive(context.WithoutCancel(first), 3); !errors.Is(err, router.ErrNotLeader) {
		t.Errorf("a change of the first term after it: %v", err)
	}
	must(t, two.receive(second, 3))
	two.sees(t, "two*")
}

func TestAReplicaThatIsCutOffLeadsNoMore(t *testing.T) {
	t.Parallel()
	url := postgrestest.URL(t)
	proxy := postgrestest.NewProxy(t, url)
	one := join(t, proxy.URL, "one", "http://here")
	first := <-one.begun
	two := join(t, url, "two", "http://here")
	two.sees(t, "one*", "two")
	proxy.Refuse(true)
	<-first.Done()
	second := <-two.begun
	proxy.Refuse(false)
	two.sees(t, "two*", "one") // it is back
	must(t, two.receive(second, 1))
	must(t, two.stop())
	third := <-one.begun
	must(t, one.receive(third, 2))
}

func TestALeaderThatSaysNothingIsEnded(t *testing.T) {
	t.Parallel()
	url := postgrestest.URL(t)
	proxy := postgrestest.NewProxy(t, url)
	one := join(t, proxy.URL, "one", "http://here")
	<-one.begun
	two := join(t, url, "two", "http://here")
	two.sees(t, "one*", "two")
	defer proxy.Freeze(false)
	proxy.Freeze(true) // its machine is gone, and nobody says so
	<-two.begun
	two.sees(t, "two*")
}

func TestAReplicaWithAnotherPublicURLIsRefused(t *testing.T) {
	t.Parallel()
	url := postgrestest.URL(t)
	one := join(t, url, "one", "http://here")
	<-one.begun
	two := join(t, url, "two", "http://elsewhere")
	<-two.left
	fix, ok := errors.AsType[*router.FixError](two.stop())
	if !ok || !strings.Contains(fix.Error(), "http://elsewhere") || !strings.Contains(fix.Error(), "one") {
		t.Errorf("it was refused with %v", fix)
	}
	one.sees(t, "one*")
}

func TestAReplicaWhoseClockIsWrongDoesNotLead(t *testing.T) {
	t.Parallel()
	url := postgrestest.URL(t)
	one := join(t, url, "one", "http://here")
	<-one.begun
	two := join(t, url, "two", "http://here")
	two.set(-time.Minute)
	eventually(t, "two knows that its clock is wrong", func() bool {
		two.mu.Lock()
		defer two.mu.Unlock()
		return len(two.seen) == 2 && two.seen[1].Ahead < -50*time.Second && two.seen[1].Ahead > -70*time.Second
	})
	must(t, one.stop())
	two.sees(t, "two")
	three := join(t, url, "three", "http://here")
	<-three.begun
	two.set(0)
	must(t, three.stop())
	<-two.begun
}

func (m *member) set(ahead time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead = ahead
}

func TestAReplicaOfAnotherNomadClusterIsRefused(t *testing.T) {
	t.Parallel()
	url := postgrestest.URL(t)
	one := join(t, url, "one", "http://here", "key of one", "key of both")
	<-one.begun
	two := join(t, url, "two", "http://here", "key of both", "newer key")
	two.sees(t, "one*", "two")
	three := join(t, url, "three", "http://here", "another cluster's")
	<-three.left
	fix, ok := errors.AsType[*router.FixError](three.stop())
	if !ok || !strings.Contains(fix.Error(), "another Nomad cluster") {
		t.Errorf("it was refused with %v", fix)
	}
}

func TestADatabaseThatIsNeededAloneHasNoReplicas(t *testing.T) {
	t.Parallel()
	url := postgrestest.URL(t)
	one := openPostgres(t, url)
	if _, err := store.Open(t.Context(), url, store.Alone); err == nil || !strings.Contains(err.Error(), "another switchyard uses it") {
		t.Errorf("it was opened alone beside another: %v", err)
	}
	must(t, one.Close())
	alone, err := store.Open(t.Context(), url, store.Alone)
	must(t, err)
	defer alone.Close()
	if _, err := store.Open(t.Context(), url); err == nil || !strings.Contains(err.Error(), "another switchyard uses it") {
		t.Errorf("it was opened beside one that needs it alone: %v", err)
	}
}
