package telemetry_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"switchyard/router"
	"switchyard/router/telemetry"
)

// gather returns the values of a registry's counters and gauges, and the sums of its histograms,
// whose names begin with prefix.
func gather(t *testing.T, from prometheus.Gatherer, prefix string) map[string]float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), prefix) {
			continue
		}
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return values
}

// counter is a store without jobs.
type counter struct{}

func (counter) OpenJobs(context.Context, router.Scope) ([]router.OpenJobs, error) { return nil, nil }
func (counter) LiveRunners(context.Context) (map[router.RunnerState]int, error)   { return nil, nil }
func (counter) RunnerVersions(context.Context) ([]router.RuleVersion, error) {
	return nil, nil
}
func (counter) NodeDemand(context.Context) ([]router.NodeDemand, error)  { return nil, nil }
func (counter) Size() (main, wal int64, err error)                       { return 3, 4, nil }
func (counter) WarmRunners(context.Context) ([]router.WarmRunner, error) { return nil, nil }
func (counter) Pools() map[string]sql.DBStats {
	return map[string]sql.DBStats{"operators": {InUse: 1, Idle: 2, WaitCount: 5, WaitDuration: 1500 * time.Millisecond}}
}

func TestTheDatabaseIsShown(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(telemetry.NewDatabaseMetrics(counter{}, func() []string { return nil }), telemetry.NewPoolMetrics(counter{}))
	want := map[string]float64{
		"switchyard_database_bytes main": 3, "switchyard_database_bytes wal": 4,
		"switchyard_database_connections operators in_use": 1, "switchyard_database_connections operators idle": 2,
		"switchyard_database_connection_waits_total operators": 5, "switchyard_database_connection_wait_seconds_total operators": 1.5,
	}
	if d := cmp.Diff(want, gather(t, r, "switchyard_database_")); d != "" {
		t.Errorf("of the store (-want +got):\n%s", d)
	}

	m := telemetry.NewMetrics()
	m.Committed(3, 20*time.Millisecond)
	m.Committed(1, 10*time.Millisecond)
	want = map[string]float64{"switchyard_database_commit_seconds": 0.03, "switchyard_database_commit_changes": 4}
	if d := cmp.Diff(want, gather(t, m.Registry(), "switchyard_database_")); d != "" {
		t.Errorf("of commits (-want +got):\n%s", d)
	}
}

// demanding is a store whose runners ask for something.
type demanding struct {
	counter
	list []router.NodeDemand
}

func (d demanding) NodeDemand(context.Context) ([]router.NodeDemand, error) { return d.list, nil }

func TestWhatRunnersAskForIsShown(t *testing.T) {
	shown := func(list ...router.NodeDemand) map[string]float64 {
		r := prometheus.NewRegistry()
		r.MustRegister(telemetry.NewDatabaseMetrics(demanding{list: list}, func() []string { return nil }))
		return gather(t, r, "switchyard_demand_")
	}
	none := map[string]float64{
		"switchyard_demand_runners    placed": 0, "switchyard_demand_cores    placed": 0, "switchyard_demand_cpu_mhz    placed": 0, "switchyard_demand_memory_bytes    placed": 0,
	}
	if d := cmp.Diff(none, shown()); d != "" {
		t.Errorf("of no runners (-want +got):\n%s", d)
	}

	gpu := router.NodeDemand{NodePool: "ci", NodeClass: "gpu", Cause: router.CauseStarting, Runners: 2, Cores: 8, CPU: 500, MemoryMB: 1024, Devices: map[string]int64{"nvidia/gpu": 3}}
	away := gpu
	away.Cause = router.CauseOutOfService
	unfit := gpu
	unfit.Cause = router.CauseNoNodeFits
	want := maps.Clone(none)
	for state, n := range map[string]float64{"placed": 1, "no_node_fits": 2} {
		want["switchyard_demand_runners gpu ci  "+state] = 2 * n
		want["switchyard_demand_cores gpu ci  "+state] = 8 * n
		want["switchyard_demand_cpu_mhz gpu ci  "+state] = 500 * n
		want["switchyard_demand_memory_bytes gpu ci  "+state] = 1024 * 1024 * 1024 * n
		want["switchyard_demand_devices nvidia/gpu gpu ci  "+state] = 3 * n
	}
	if d := cmp.Diff(want, shown(gpu, away, unfit)); d != "" {
		t.Errorf("of six runners (-want +got):\n%s", d)
	}

	tokyo := gpu
	tokyo.Region = "tokyo"
	if got := shown(gpu, tokyo, tokyo); got["switchyard_demand_runners gpu ci tokyo placed"] != 4 || got["switchyard_demand_runners gpu ci  placed"] != 2 || got["switchyard_demand_devices nvidia/gpu gpu ci tokyo placed"] != 6 {
		t.Errorf("of two regions: %v", got)
	}

	// Whatever jobs make of a class or a device, there are few series, and they add up.
	list := []router.NodeDemand{{NodePool: "ci", NodeClass: "other", Cause: router.CausePlacing, Runners: 1, Devices: map[string]int64{"other": 7}}}
	for i := range 1000 {
		list = append(list, router.NodeDemand{
			NodePool: "ci", NodeClass: fmt.Sprintf("class-%d", i), Cause: router.CausePlacing, Runners: 1 + i, Devices: map[string]int64{fmt.Sprintf("device-%d", i): 1},
		})
	}
	got := shown(list...)
	runners, devices, series := 0.0, 0.0, 0
	for name, v := range got {
		series++
		if strings.HasPrefix(name, "switchyard_demand_runners") {
			runners += v
		}
		if strings.HasPrefix(name, "switchyard_demand_devices") {
			devices += v
		}
	}
	if runners != 1+1000*1001/2 || devices != 1007 || series > 700 {
		t.Errorf("%v runners ask for %v devices in %d series, want 500501 and 1007 in 700 at most", runners, devices, series)
	}
	if v := got["switchyard_demand_runners class-999 ci  placing"]; v != 1000 {
		t.Errorf("the class of the most runners has %v", v)
	}
}
