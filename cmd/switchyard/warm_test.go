package main

import (
	"cmp"
	"context"
	"flag"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
	"switchyard/router/testnet"
)

var (
	warmSeed  = flag.Uint64("warm.seed", 0, "seed of TestChaosWithWarmRunners; 0: a new one")
	warmKills = flag.Int("warm.kills", 4, "how often the router is killed there; 200 take minutes")
	warmTwo   = flag.Bool("warm.replicas", false, "there are two, and the leader is killed; what becomes of a claim that it answered takes 45 s to find out")
)

const (
	vocabulary = "version: 1\nlabels: { self-hosted: {}, linux: {}, macos: {} }\n"
	keptWarm   = vocabulary + `
rules:
  - { name: macos, if: has("macos"), jobspec: raw-exec-macos, warm: { idle: 1 } }
  - { name: linux, jobspec: docker-linux, warm: { idle: 2, max: 6 } }
`
	noneWarm = vocabulary + `
rules:
  - { name: macos, if: has("macos"), jobspec: raw-exec-macos }
  - { name: linux, jobspec: docker-linux }
`
)

// A striker passes requests on to Nomad, and at one that changes something has the router ended:
// it strikes before the change, or when that is made and not answered.
type striker struct {
	struck chan struct{} // received: the router waits for an answer, and will not get one

	mu    sync.Mutex
	in    int // so many changes; 0: it does not
	after bool
}

func newStriker() *striker { return &striker{struck: make(chan struct{}, 1)} }

// arm has it strike at the nth change from now on.
func (s *striker) arm(n int, after bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in, s.after = n, after
}

// before returns a Nomad that it stands before.
func (s *striker) before(nomad http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		now, after := false, false
		if r.Method != http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/job") {
			s.mu.Lock()
			if s.in > 0 {
				s.in--
				now, after = s.in == 0, s.after
			}
			s.mu.Unlock()
		}
		if !now {
			nomad.ServeHTTP(rw, r)
			return
		}
		if after {
			nomad.ServeHTTP(httptest.NewRecorder(), r)
		}
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
		s.struck <- struct{}{}
		<-r.Context().Done()
	})
}

// A warmWorld is a world whose routers are processes that share a database.
type warmWorld struct {
	*routertest.World
	*replicas
	*striker
	t     *testing.T
	rules string // the path of their rules file
}

func newWarmWorld(t *testing.T, seed uint64) *warmWorld {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the tests send signals that Windows does not have")
	}
	c := &warmWorld{t: t, striker: newStriker(), replicas: &replicas{t: t, front: newBalancer(t)}, rules: filepath.Join(t.TempDir(), "rules.yaml")}
	c.World = routertest.New(t, routertest.Config{
		Rules: keptWarm, Network: &testnet.Net{Loopback: true}, Hub: githubsim.Config{RandSeed: seed}, Cluster: nomadsim.Config{Nodes: chaosFleet()}, Front: c.striker.before,
	})
	c.Again = 100 * time.Millisecond
	c.Addr = strings.TrimPrefix(c.front.URL, "http://")
	c.write(keptWarm)
	return c
}

// write puts rules in the file of the routers, which see it at once or not at all.
func (c *warmWorld) write(rules string) {
	c.t.Helper()
	must(c.t, os.WriteFile(c.rules+".new", []byte(rules), 0o600))
	must(c.t, os.Rename(c.rules+".new", c.rules))
}

// add adds a router, which is not started, to those with this database; "" is a file of its own.
func (c *warmWorld) add(database string) *process {
	c.t.Helper()
	p := newProcess(c.t, c.NomadURL, c.GitHubURL)
	p.program = hurried
	secret := filepath.Join(c.t.TempDir(), "secret")
	must(c.t, os.WriteFile(secret, []byte(routertest.Secret), 0o600))
	if database == "" {
		database = filepath.Join(c.t.TempDir(), "switchyard.db")
	}
	p.args = append(p.args, "--db", database, "--public-url", c.front.URL, "--rules", c.rules, "--webhook-secret-file", secret)
	c.Database, c.all = database, append(c.all, p)
	return p
}

// read opens the database of the routers for reading.
func (c *warmWorld) read() *store.Reader {
	c.t.Helper()
	st, err := store.OpenReadOnly(c.t.Context(), c.Database)
	must(c.t, err)
	c.t.Cleanup(func() { _ = st.Close() })
	return st
}

// warm returns the Nomad jobs of warm runners, taken or not, that have not ended.
func (c *warmWorld) warm() (ids []string) {
	c.t.Helper()
	list, _, err := c.API.Jobs().PrefixList(router.WarmPrefix)
	must(c.t, err)
	for _, j := range list {
		if j.Status != "dead" {
			ids = append(ids, j.ID)
		}
	}
	return ids
}

// awaitReady waits until a warm runner of a rule waits at the claim that was not there before,
// and returns its Nomad job.
func (c *warmWorld) awaitReady(st *store.Reader, rule string, before ...string) (id string) {
	c.t.Helper()
	c.await("a warm runner waits at the claim", func() bool {
		all, err := st.WarmRunners(c.t.Context())
		must(c.t, err)
		i := slices.IndexFunc(all, func(w router.WarmRunner) bool {
			return w.Rule == rule && w.State == router.WarmReady && w.Registered && !w.Doubted && !slices.Contains(before, w.ID)
		})
		if i >= 0 {
			id = all[i].ID
		}
		return i >= 0
	})
	return id
}

// await waits until ok, for as long as a slow machine may take.
func (c *warmWorld) await(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			for _, p := range c.all {
				c.t.Logf("the log of %s:\n%s", p.admin, p.log.String())
			}
			c.t.Fatalf("not within 5 minutes: %s", what)
		}
	}
}

// A warm runner that the leader asked Nomad for when it was killed is stopped by the next one. Jobs
// that another replica receives, to which their runners' claims come, too, get one warm runner each.
func TestAWarmRunnerBetweenReplicas(t *testing.T) {
	t.Parallel()
	database := postgrestest.URL(t)
	c := newWarmWorld(t, 1)
	c.write(strings.ReplaceAll(keptWarm, "idle: 2, max: 6", "idle: 1"))
	first, second := c.add(database), c.add(database)
	c.front.set(first, second)
	c.arm(2, true) // Nomad has both, and the database of the second only that it was asked for
	first.start()
	<-c.struck
	st := c.read()
	all, err := st.WarmRunners(t.Context())
	must(t, err)
	half := slices.IndexFunc(all, func(w router.WarmRunner) bool { return !w.Registered })
	if half < 0 || len(all) != 2 || len(c.warm()) != 2 {
		t.Fatalf("the database has %+v, and Nomad %v", all, c.warm())
	}
	second.start()
	first.kill()
	c.front.set(second)
	c.await("the one that is half started is stopped", func() bool { return c.Gone(all[half].ID) })
	c.awaitReady(st, "linux")
	ready := c.awaitReady(st, "macos")
	if n := len(c.warm()); n != 2 {
		t.Errorf("Nomad has %d warm runners, want 2", n)
	}

	first.start()
	c.front.set(first)
	if c.leader() != second {
		t.Fatal("the one that was started last leads")
	}
	used := map[string]int64{}
	for range 3 {
		id := c.Queue("self-hosted", "macos")
		c.await("the job has ended", func() bool {
			j, err := st.Job(t.Context(), id)
			return err == nil && j.State == router.Completed
		})
		list, err := st.Runners(t.Context(), id)
		must(t, err)
		if len(list) != 1 || list[0].NomadJob != ready || used[ready] != 0 {
			t.Errorf("job %d has the runners %+v, want the warm one %s", id, list, ready)
		}
		used[ready] = id
		ready = c.awaitReady(st, "macos", ready)
	}
	c.await("one of each rule is left", func() bool { return len(c.warm()) == 2 })
	if got := c.GitHub.Runners(); len(got) != 0 {
		t.Errorf("GitHub has %+v", got)
	}
}

// kill -9 at whatever the router asks of Nomad: no warm runner has two jobs, and none is left.
func TestChaosWithWarmRunners(t *testing.T) {
	t.Parallel()
	databases := []string{""}
	if *warmTwo {
		databases = slices.Repeat([]string{postgrestest.URL(t)}, 2)
	}
	seed := cmp.Or(*warmSeed, rand.Uint64())
	t.Logf("seed %d: go test ./cmd/switchyard -run '%s$' -warm.seed %d -warm.kills %d -warm.replicas=%t", seed, t.Name(), seed, *warmKills, *warmTwo)
	c := newWarmWorld(t, seed)
	for _, database := range databases {
		c.add(database)
	}
	c.front.set(c.all...) // before the first claims
	for _, p := range c.all {
		p.start()
	}
	random := rand.New(rand.NewPCG(seed, 1))
	labels := [][]string{{"self-hosted", "linux"}, {"self-hosted", "linux"}, {"self-hosted", "macos"}}
	queue := func(n int) {
		for range n {
			id := c.GitHub.Queue(t.Context(), githubsim.JobSpec{
				Owner: "acme", Repo: "web", Private: true, Labels: labels[random.IntN(len(labels))], Duration: time.Duration(random.Int64N(int64(time.Second))),
			})
			if random.Float64() < 0.1 {
				_ = c.GitHub.Cancel(id) // it may have ended
			}
		}
	}
	for range *warmKills {
		p := c.all[0]
		if len(c.all) > 1 {
			p = c.leader()
			c.front.set(c.without(p)...)
		}
		c.arm(1+random.IntN(4), random.IntN(2) == 0)
		queue(4)
		select {
		case <-c.struck:
		case <-time.After(5 * time.Minute):
			t.Fatalf("Nomad is asked to change nothing; the log:\n%s", c.all[0].log.String())
		}
		p.kill()
		p.start()
	}
	st := c.read()
	c.awaitReady(st, "linux")
	queue(4)
	ch := &chaos{World: c.World, seed: seed}
	ends := func(ignored string) {
		var open []string
		for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			open = slices.DeleteFunc(ch.unfinished(t, context.WithoutCancel(t.Context()), c.GitHub, st), func(o string) bool { return ignored != "" && strings.HasPrefix(o, ignored) })
			if len(open) == 0 {
				return
			}
		}
		for _, o := range open[:min(len(open), 20)] {
			t.Error(o)
		}
	}
	ends("Nomad job " + router.WarmPrefix) // these stay as long as the rules keep them
	c.write(noneWarm)
	ends("")
	c.await("the database has none", func() bool {
		all, err := st.WarmRunners(t.Context())
		return err == nil && len(all) == 0
	})
	ch.verdict(t, c.GitHub, st)
	ch.warmVerdict(t, st)
	if t.Failed() {
		for _, p := range c.all {
			t.Logf("the log of %s:\n%s", p.admin, p.log.String())
		}
	}
}
