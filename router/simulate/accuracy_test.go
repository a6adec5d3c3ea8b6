package simulate

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/feasible"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
	"switchyard/router/testnet"
)

// A run on a Nomad whose one node has no room for all is recorded and replayed. Mean, median and
// 95th percentile of the time for a node are those that were seen, within a second or a tenth,
// and what Nomad itself took to fill its node again after each job.
func TestARecordedRunIsReplayedAsItWas(t *testing.T) {
	sleep := func(ctx context.Context, task nomadsim.Task) int {
		seconds, _ := strconv.ParseFloat(task.Env["TAKES"], 64)
		select {
		case <-time.After(time.Duration(seconds * float64(time.Second))):
			return 0
		case <-ctx.Done():
			return 130
		}
	}
	t.Run("real", func(t *testing.T) {
		on := nomadtest.Real(t)
		replay(t, on, nomad.Config{API: on.Config})
	})
	t.Run("simulated", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sim := nomadsim.New(nomadsim.Config{Run: sleep, Nodes: []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "vm", Kernel: "linux", Arch: "amd64", Cores: 2, MemoryMB: 4096})}})
			t.Cleanup(sim.Close)
			network := new(testnet.Net)
			config := &api.Config{Address: network.Serve(t, sim), HttpClient: network.Client()}
			t.Cleanup(config.HttpClient.CloseIdleConnections)
			client, err := api.NewClient(config)
			if err != nil {
				t.Fatal(err)
			}
			replay(t, nomadtest.Target{Nomad: client}, nomad.Config{API: config, Dial: network.Dial})
		})
	})
}

// replay records a run of jobs on the one node of a Nomad, and replays it.
func replay(t *testing.T, on nomadtest.Target, c nomad.Config) {
	c.Jobspecs = &jobspecs.Set{}
	client, err := nomad.New(c)
	if err != nil {
		t.Fatal(err)
	}
	const jobs = 24
	nodes, _, err := capacity.New(client).Nodes(t.Context())
	if err != nil || len(nodes) != 1 {
		t.Fatalf("%d nodes, %v; want one", len(nodes), err)
	}
	third := (feasible.Idle(nodes[0]).MemoryMB - 30) / 3
	spec := func(id string, size int, takes float64) *api.Job {
		j := api.NewBatchJob(id, id, "global", 50)
		task := api.NewTask("runner", "raw_exec").SetConfig("command", "/bin/sh").SetConfig("args", []string{"-c", `exec sleep "$TAKES"`})
		task.Env = map[string]string{"TAKES": fmt.Sprintf("%.2f", takes)}
		task.Require(&api.Resources{CPU: new(20), MemoryMB: new(size * third)})
		task.LogConfig = &api.LogConfig{MaxFiles: new(1), MaxFileSizeMB: new(1)}
		g := api.NewTaskGroup("runner", 1).AddTask(task)
		g.EphemeralDisk = &api.EphemeralDisk{SizeMB: new(20)}
		g.RestartPolicy = &api.RestartPolicy{Attempts: new(0), Mode: new("fail")}
		return j.AddTaskGroup(g)
	}

	random := rand.New(rand.NewPCG(1, 2))
	past := make([]router.PastJob, jobs)
	for i := range past {
		size, takes := 1+random.IntN(2), 0.5+1.5*random.Float64()
		p := &past[i]
		p.ID, p.Labels, p.RunID = int64(i+1), []string{[]string{"small", "large"}[size-1]}, int64(i+1)
		id := fmt.Sprintf("replayed-%d-%d", time.Now().UnixNano(), i)
		on.Purge(t, id)
		p.Repo.FullName = id // kept here until its times are known
		p.ReceivedAt = time.Now()
		on.Register(t, spec(id, size, takes))
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
	}
	for i := range past {
		p := &past[i]
		nomadtest.Await(t, "the end of "+p.Repo.FullName, func() bool {
			allocs, _, err := on.Nomad.Jobs().Allocations(p.Repo.FullName, true, nil)
			if err != nil || len(allocs) == 0 || slices.Contains([]string{"pending", "running"}, allocs[0].ClientStatus) {
				return false
			}
			if len(allocs) > 1 || allocs[0].ClientStatus != "complete" {
				t.Skipf("this machine is too busy: Nomad has %d allocations of one job, and calls the first %s", len(allocs), allocs[0].ClientStatus)
			}
			p.PlacedAt = time.Unix(0, allocs[0].CreateTime)
			p.RunningAt, p.CompletedAt = p.PlacedAt, time.Unix(0, allocs[0].ModifyTime)
			return true
		})
	}

	set := load(t, "version: 1\nscope: 'true'\nlabels: { small: { resources: { memory: 1024 } }, large: { resources: { memory: 2048 } } }\nrules: [{ name: all, if: 'true', jobspec: shell }]\n")
	render := func(_ context.Context, r router.StartRequest) (*api.Job, error) {
		return spec("x", r.Placement.Resources.MemoryMB/1024, 0), nil
	}
	r, err := Run(t.Context(), Config{Rules: set, Nodes: nodes, Render: render}, all(past))
	if err != nil {
		t.Fatal(err)
	}
	if r.Jobs != jobs {
		t.Fatalf("%d jobs were simulated, want %d", r.Jobs, jobs)
	}
	own := lag(past)
	seen, got := r.Total.Recorded, r.Total.Queue
	t.Logf("seen %+v, simulated %+v; Nomad took %v in all to fill its node again", seen, got, own)
	for _, w := range [][2]float64{{seen.Mean, got.Mean}, {seen.P50, got.P50}, {seen.P95, got.P95}} {
		if bound := max(1, w[0]/10) + own.Seconds(); math.Abs(w[0]-w[1]) > bound {
			t.Errorf("%.2f s were seen, %.2f s simulated: more than %.2f s apart", w[0], w[1], bound)
		}
	}
	if seen.P95 < 2 {
		t.Errorf("hardly a job waited: %+v", seen)
	}
}

// lag returns how long Nomad took in all to place jobs after they came, and after a job before
// them had ended.
func lag(past []router.PastJob) (sum time.Duration) {
	for _, p := range past {
		since := p.ReceivedAt
		for _, other := range past {
			if end := other.CompletedAt; end.After(since) && !end.After(p.PlacedAt) {
				since = end
			}
		}
		sum += max(0, p.PlacedAt.Sub(since))
	}
	return sum
}
