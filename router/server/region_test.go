package server_test

import (
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/nomadsim"
)

const regionRules = `
rules:
  - { name: tokyo, if: 'has("tokyo")', jobspec: docker-linux, region: tokyo }
  - { name: linux, if: 'has("linux")', jobspec: docker-linux }
`

// A job of a rule with a region gets its runner there, which is followed there and ends.
func TestAJobOfAnotherRegion(t *testing.T) { synctest.Test(t, testAJobOfAnotherRegion) }

func testAJobOfAnotherRegion(t *testing.T) {
	w := newWorld(t, regionRules)
	w.Region(nomadsim.Config{Region: "tokyo"})
	w.Start()
	there, here := w.Queue("self-hosted", "tokyo"), w.Queue("self-hosted", "linux")
	for id, region := range map[int64]string{there: "tokyo", here: ""} {
		w.Await(id, in(router.Completed))
		r := w.Runners(id)[0]
		if r.NomadAt != (router.NomadAt{Namespace: "default", Region: region}) || r.Node == "" {
			t.Errorf("the runner of job %d is in %+v on node %q", id, r.NomadAt, r.Node)
		}
		eventually(t, "its end is recorded", func() bool { return !w.Runners(id)[0].EndedAt.IsZero() })
	}
}

// While a region is away its jobs wait and say so, and others go on; then they are served.
func TestARegionThatIsAway(t *testing.T) { synctest.Test(t, testARegionThatIsAway) }

func testARegionThatIsAway(t *testing.T) {
	w := newWorld(t, regionRules)
	tokyo := w.Region(nomadsim.Config{Region: "tokyo"})
	tokyo.SetFault(nomadsim.Refusing, 0)
	w.Start()
	there := w.Queue("self-hosted", "tokyo")
	w.Await(there, func(j router.Job) bool { return j.State == router.Retrying && j.Cause == router.CauseNomad })
	for range 20 {
		began := time.Now()
		w.Await(w.Queue("self-hosted", "linux"), in(router.Completed))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a job of another region took %s", took)
		}
	}
	if j, err := w.Store.Job(t.Context(), there); err != nil || j.State != router.Retrying {
		t.Errorf("the job of the region that is away is %s: %s, %v", j.State, j.Reason, err)
	} else {
		t.Log(j.Reason)
	}
	tokyo.SetFault(nomadsim.Healthy, 0)
	w.Await(there, in(router.Completed))
}
