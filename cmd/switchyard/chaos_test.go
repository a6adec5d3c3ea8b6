package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"flag"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/intake"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
)

var (
	chaosSeed = flag.Uint64("chaos.seed", 0, "seed of TestChaos; 0: a new one")
	chaosJobs = flag.Int("chaos.jobs", 60, "jobs of TestChaos; 5000 take minutes")
	chaosPoll = flag.Bool("chaos.poll", false, "deliveries are read from GitHub in place of being received")
	chaosSlow = flag.Int("chaos.slow", 0, "show the timelines of this many jobs that waited longest")
	chaosLog  = flag.Bool("chaos.log", false, "show the router's log")
)

// A chaos is everything that can go wrong, as its seed says.
type chaos struct {
	*routertest.World
	seed  uint64
	poll  bool         // deliveries are read in place of being received
	ahead atomic.Int64 // by how much the router's clock is
}

// now is what the router's clock shows. Its differences are those of what it shows.
func (c *chaos) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())).Round(0) }

const chaosRules = `
version: 1
scope: '"self-hosted" in labels'
labels:
  self-hosted: {}
  linux: {}
  macos: {}
  x64: { constraints: ['${attr.cpu.arch} = amd64'] }
  arm64: { constraints: ['${attr.cpu.arch} = arm64'] }
  large: { resources: { memory: 8GiB } }
  spot: { constraints: ['${node.class} = spot'] }
  "cpu=*":
    param: { name: cpu, type: int, min: 1, max: 8 }
    resources: { cores: '${{ param.cpu }}' }
defaults:
  resources: { cpu: 1000, memory: 1GiB }
rules:
  - name: macos
    if: '"macos" in labels'
    jobspec: raw-exec-macos
    limit: { running: 12, per: owner }
  - name: shared
    if: '"linux" in labels and repo.owner matches "[02468]$"'
    jobspec: docker-linux
    runner: { scope: organization }
  - name: own
    if: '"linux" in labels'
    jobspec: docker-linux
    fallback:
      - { after: 5m, constraints: [] }
`

// labelSets are 40 sets of labels; many are parts of others.
func labelSets() [][]string {
	var sets [][]string
	for _, os := range [][]string{{"self-hosted", "linux"}, {"self-hosted", "Linux", "x64"}, {"self-hosted", "linux", "arm64"}, {"self-hosted", "macos"}} {
		for _, more := range [][]string{nil, {"large"}, {"cpu=1"}, {"cpu=2"}, {"large", "cpu=2"}, {"spot"}, {"spot", "large"}, {"spot", "cpu=1"}, {"cpu=4"}, {"large", "cpu=4"}} {
			set := slices.Concat(os, more)
			if os[1] == "macos" {
				set = slices.DeleteFunc(set, func(l string) bool { return l == "spot" })
				set = append(set, []string{"arm64", "x64"}[len(sets)%2])
			}
			sets = append(sets, set)
		}
	}
	return sets
}

func chaosFleet() []*api.Node {
	var nodes []*api.Node
	add := func(n int, m nomadsim.Machine) {
		for i := range n {
			m := m
			m.Name = fmt.Sprintf("%s-%d", m.Name, i+1)
			nodes = append(nodes, nomadsim.NewNode(m))
		}
	}
	add(12, nomadsim.Machine{Name: "x64", Kernel: "linux", Arch: "amd64", Cores: 64, MemoryMB: 256 << 10})
	add(8, nomadsim.Machine{Name: "x64-spot", Kernel: "linux", Arch: "amd64", Cores: 64, MemoryMB: 256 << 10, Class: "spot"})
	add(10, nomadsim.Machine{Name: "arm", Kernel: "linux", Arch: "arm64", Cores: 64, MemoryMB: 256 << 10})
	add(6, nomadsim.Machine{Name: "arm-spot", Kernel: "linux", Arch: "arm64", Cores: 64, MemoryMB: 256 << 10, Class: "spot"})
	add(10, nomadsim.Machine{Name: "mac-x64", Kernel: "darwin", Arch: "amd64", Cores: 12, MemoryMB: 64 << 10})
	add(10, nomadsim.Machine{Name: "mac-arm", Kernel: "darwin", Arch: "arm64", Cores: 12, MemoryMB: 64 << 10})
	return nodes
}

// Whatever goes wrong, each job is served once or cancelled, and nothing is
// left over, warm runners neither. The clock is not real: half an hour of trouble takes a while of computing.
func TestChaos(t *testing.T) { testChaos(t, &chaos{poll: *chaosPoll}, *chaosJobs) }

// Nor if no delivery arrives.
func TestChaosWithoutAWebhook(t *testing.T) { testChaos(t, &chaos{poll: true}, min(*chaosJobs, 100)) }

func testChaos(t *testing.T, c *chaos, jobs int) {
	t.Parallel()
	if c.seed = *chaosSeed; c.seed == 0 {
		c.seed = mathrand.Uint64()
	}
	t.Logf("%d jobs, seed %d: go test ./cmd/switchyard -run '%[4]s$' -chaos.seed %[2]d -chaos.jobs %[1]d -chaos.poll=%[3]t", jobs, c.seed, c.poll, t.Name())
	key, err := rsa.GenerateKey(rand.Reader, 1024) // the least, as each request is signed with it
	must(t, err)
	began := time.Now()
	synctest.Test(t, func(t *testing.T) { c.run(t, jobs, key) })
	t.Logf("took %s", time.Since(began).Round(time.Second))
}

func (c *chaos) run(t *testing.T, jobs int, key *rsa.PrivateKey) {
	ctx := t.Context()
	world := routertest.Config{Hub: githubsim.Config{RandSeed: c.seed}, Cluster: nomadsim.Config{Nodes: chaosFleet()}}
	if c.poll {
		world.New = wired(appParts{polls: []intake.Poll{{Hook: router.Hook{Kind: router.HookApp}}}})
	}
	c.World = limited(t, warmer.Replace(chaosRules), key, world)
	c.Deliveries(!c.poll)
	c.Start(func(sc *server.Config) { sc.Now = c.now })
	hub, sim := c.GitHub, c.Nomad

	var owners []string
	for i := range 10 {
		owner := fmt.Sprintf("team-%d", i)
		owners = append(owners, owner)
		hub.Install(owner)
	}
	const arrivals = 30 * time.Minute
	var trouble sync.WaitGroup
	at := func(when time.Duration, do func()) {
		trouble.Go(func() { time.Sleep(when); do() })
	}
	at(5*time.Minute, func() { sim.SetFault(nomadsim.Refusing, 0) })
	at(6*time.Minute, func() { sim.SetFault(nomadsim.Healthy, 0) })
	hub.SetDeliveryFaults(githubsim.DeliveryFaults{Lost: 0.05, Doubled: 0.10, Late: 0.20, LateBy: 30 * time.Second, Seed: c.seed})
	faults := githubsim.Faults{ErrorRate: 0.05, Seed: c.seed}
	hub.SetFaults(faults)
	at(12*time.Minute, func() {
		limited := faults
		limited.LimitedUntil = time.Now().Add(time.Minute)
		hub.SetFaults(limited)
	})
	for when, step := range map[time.Duration]time.Duration{8: time.Hour, 10: -time.Hour, 20: -40 * time.Minute, 22: 40 * time.Minute} {
		at(when*time.Minute, func() { c.ahead.Add(int64(step)) })
	}
	at(17*time.Minute, func() { sim.SetFault(nomadsim.Silent, 0) })
	at(19*time.Minute, func() { sim.SetFault(nomadsim.Healthy, 0) })
	at(24*time.Minute, func() { hub.SetFaults(githubsim.Faults{ErrorRate: 1, Seed: c.seed}) })
	at(26*time.Minute, func() { hub.SetFaults(faults) })
	at(15*time.Minute, func() {
		for _, name := range []string{"x64-1", "arm-1"} {
			if err := sim.FailNode(name); err != nil {
				t.Error(err)
			}
		}
	})
	sets := labelSets()
	random := mathrand.New(mathrand.NewPCG(c.seed, 1))
	for i := range jobs {
		owner := owners[random.IntN(len(owners))]
		spec := githubsim.JobSpec{
			Owner: owner, Repo: fmt.Sprintf("repo-%d", random.IntN(5)), Private: true, Labels: sets[random.IntN(len(sets))],
			Duration: 20*time.Second + time.Duration(random.Int64N(int64(160*time.Second))),
		}
		when := time.Duration(random.Int64N(int64(arrivals)))
		cancelAt := time.Duration(-1)
		if random.Float64() < 0.05 {
			cancelAt = time.Duration(random.Int64N(int64(2 * time.Minute)))
		}
		at(when, func() {
			id := hub.Queue(ctx, spec)
			if id == 0 {
				t.Errorf("job %d was not queued", i)
			}
			if cancelAt >= 0 {
				time.Sleep(cancelAt)
				_ = hub.Cancel(id) // it may have ended
			}
		})
	}
	trouble.Wait()

	var open []string
	for range 4 * 60 { // warm runners stay as long as the rules keep them
		open = slices.DeleteFunc(c.unfinished(t, ctx, hub, c.Store), func(o string) bool { return strings.HasPrefix(o, "Nomad job "+router.WarmPrefix) })
		if len(open) == 0 {
			break
		}
		time.Sleep(time.Minute)
	}
	c.App.Reload(routertest.Parse(t, chaosRules), router.RulesVersion{Hash: "no warm runners"})
	st := c.Store
	for range 4 * 60 {
		open = c.unfinished(t, ctx, hub, st)
		if len(open) == 0 {
			break
		}
		time.Sleep(time.Minute)
	}
	for _, o := range open[:min(len(open), 20)] {
		t.Errorf("after %s: %s", time.Since(c.began(hub)), o)
	}
	c.verdict(t, hub, st)
	c.warmVerdict(t, st)
}

// warmer adds warm runners to chaosRules.
var warmer = strings.NewReplacer(
	"    limit: { running: 12, per: owner }\n", "    limit: { running: 12, per: owner }\n    warm: [{ idle: 2, labels: [self-hosted, macos, arm64] }, { idle: 1, labels: [self-hosted, macos, x64] }]\n",
	"    runner: { scope: organization }\n", "    runner: { scope: organization }\n    warm: { idle: 3, max: 30 }\n",
)

// warmVerdict checks that no warm runner was that of two jobs.
func (c *chaos) warmVerdict(t *testing.T, st interface {
	Runners(ctx context.Context, jobID int64) ([]router.Runner, error)
	WarmRunners(ctx context.Context) ([]router.WarmRunner, error)
},
) {
	of, taken := map[string]string{}, 0
	for _, j := range c.GitHub.Jobs() {
		list, err := st.Runners(t.Context(), j.ID)
		must(t, err)
		for _, r := range list {
			if !router.IsWarm(r.NomadJob) {
				continue
			}
			if other := of[r.NomadJob]; other != "" {
				t.Errorf("runners %s and %s are both the warm runner %s", other, r.ID, r.NomadJob)
			}
			of[r.NomadJob] = r.ID
			taken++
		}
	}
	if all, err := st.WarmRunners(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("the database has the warm runners %+v, %v", all, err)
	}
	t.Logf("%d runners were warm", taken)
}

func (c *chaos) began(hub *githubsim.Server) time.Time { return hub.Jobs()[0].CreatedAt }

// A jobReader reads what the router knows of jobs.
type jobReader interface {
	Job(ctx context.Context, id int64) (router.Job, error)
	Timeline(ctx context.Context, jobID int64) ([]router.Event, error)
}

// unfinished are the jobs and runners that have not come to their end.
func (c *chaos) unfinished(t *testing.T, ctx context.Context, hub *githubsim.Server, st jobReader) (open []string) {
	for _, j := range hub.Jobs() {
		if j.Status == "completed" {
			continue
		}
		said := fmt.Sprintf("job %d %v is %s on GitHub", j.ID, j.Labels, j.Status)
		if known, err := st.Job(ctx, j.ID); err != nil {
			said += fmt.Sprintf("; the router: %v", err)
		} else {
			said += fmt.Sprintf("; the router has it %s: %s", known.State, known.Reason)
			said += timeline(t, st, j.ID)
		}
		open = append(open, said)
	}
	for _, j := range c.nomadJobs(t) {
		if j.Status != "dead" {
			open = append(open, fmt.Sprintf("Nomad job %s is %s", j.ID, j.Status))
		}
	}
	for _, r := range hub.Runners() {
		open = append(open, fmt.Sprintf("GitHub has runner %s", r.Name))
	}
	return open
}

func timeline(t *testing.T, st jobReader, jobID int64) (text string) {
	events, err := st.Timeline(t.Context(), jobID)
	must(t, err)
	for _, e := range events {
		text += fmt.Sprintf("\n%s %-8s %-14s %-10s %s", e.At.Format(time.TimeOnly), e.Source, e.RunnerID, e.State, e.What)
	}
	return text
}

func (c *chaos) nomadJobs(t *testing.T) []*api.JobListStub {
	list, _, err := c.API.Jobs().PrefixList("gha-")
	must(t, err)
	return list
}

// verdict checks how it ended, and says how much went wrong.
func (c *chaos) verdict(t *testing.T, hub *githubsim.Server, st jobReader) {
	ended := map[string]int{}
	byRunner := map[string]int64{}
	waits, slow := []time.Duration{}, []githubsim.Job{}
	for _, j := range hub.Jobs() {
		ended[j.Conclusion]++
		if j.RunnerName != "" {
			if other := byRunner[j.RunnerName]; other != 0 {
				t.Errorf("jobs %d and %d ran on one runner, %s", other, j.ID, j.RunnerName)
			}
			byRunner[j.RunnerName] = j.ID
			waits = append(waits, j.StartedAt.Sub(j.CreatedAt))
			slow = append(slow, j)
		}
	}
	slices.Sort(waits)
	traffic := hub.Traffic()
	if traffic.Over > 0 {
		t.Errorf("%d requests were over GitHub's limits", traffic.Over)
	}
	lost, again, arrived := 0, 0, 0
	for _, d := range hub.Deliveries() {
		if d.Redelivery {
			again++
		} else if d.Status != "OK" {
			lost++
		} else {
			arrived++
		}
	}
	if c.poll && arrived+again > 0 {
		t.Errorf("%d deliveries arrived, and %d were redelivered, want all read", arrived, again)
	}
	t.Logf("%d deliveries, of which %d were lost; %d redeliveries", len(hub.Deliveries())-again, lost, again)
	t.Logf("%d requests to GitHub, of which it spoiled %d: %.2f for each job", traffic.Requests, traffic.Faults, float64(traffic.Requests)/float64(len(hub.Jobs())))
	for _, how := range slices.Sorted(maps.Keys(ended)) {
		t.Logf("%d jobs ended as %q", ended[how], how)
	}
	t.Logf("%d Nomad jobs for %d jobs that ran; waited %s at p50, %s at p99, %s at most",
		len(c.nomadJobs(t)), len(waits), waits[len(waits)/2], waits[len(waits)*99/100], waits[len(waits)-1])
	slices.SortFunc(slow, func(a, b githubsim.Job) int {
		return cmp.Compare(b.StartedAt.Sub(b.CreatedAt), a.StartedAt.Sub(a.CreatedAt))
	})
	for _, j := range slow[:min(len(slow), *chaosSlow)] {
		t.Logf("job %d %v of %s/%s waited %s:%s", j.ID, j.Labels, j.Owner, j.Repo, j.StartedAt.Sub(j.CreatedAt), timeline(t, st, j.ID))
	}
}
