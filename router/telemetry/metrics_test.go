package telemetry_test

import (
	"context"
	"database/sql"
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
func (counter) Size() (main, wal int64, err error) { return 3, 4, nil }
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
