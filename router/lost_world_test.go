package router_test

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
)

func TestNoJobIsLostWithItsDeliveries(t *testing.T) {
	synctest.Test(t, testNoJobIsLostWithItsDeliveries)
}
func testNoJobIsLostWithItsDeliveries(t *testing.T) {
	w := newWorld(t, plainRule)
	w.github.SetDeliveryFaults(githubsim.DeliveryFaults{Lost: 0.3, Doubled: 0.2, Late: 0.3, LateBy: 200 * time.Millisecond, Seed: 1})
	w.start(func(c *router.Config) { c.Deliveries = 50 * time.Millisecond })
	var ids []int64
	for range 20 {
		ids = append(ids, w.queue("self-hosted", "linux"))
	}
	for _, id := range ids {
		w.await(id, in(router.Completed))
	}
	lost, again := 0, 0
	for _, d := range w.github.Deliveries() {
		if d.Status != "OK" && d.Status != "" {
			lost++
		}
		if d.Redelivery {
			again++
		}
	}
	if lost == 0 || again == 0 || again > lost {
		t.Errorf("%d deliveries were lost and %d made again, want some, and none twice", lost, again)
	}
}

func TestWhatFailedWhileWeWereDownIsDeliveredAgain(t *testing.T) {
	synctest.Test(t, testWhatFailedWhileWeWereDownIsDeliveredAgain)
}
func testWhatFailedWhileWeWereDownIsDeliveredAgain(t *testing.T) {
	w := newWorld(t, plainRule)
	soon := func(c *router.Config) { c.Deliveries = 50 * time.Millisecond }
	w.start(soon)
	w.await(w.queue("self-hosted", "linux"), in(router.Completed)) // so that the webhook is known
	w.stop()
	id := w.queue("self-hosted", "linux")
	if err := w.github.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.start(soon)
	w.await(id, in(router.Completed))
}

func TestWithTheDatabaseDeletedWaitingJobsAreFound(t *testing.T) {
	synctest.Test(t, testWithTheDatabaseDeletedWaitingJobsAreFound)
}
func testWithTheDatabaseDeletedWaitingJobsAreFound(t *testing.T) {
	w := newWorld(t, plainRule)
	w.start()
	long := w.github.Queue(t.Context(), githubsim.JobSpec{
		Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour,
	})
	w.await(long, in(router.Running))
	w.stop()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(w.db + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	waits := w.queue("self-hosted", "linux")
	if err := w.github.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.start() // the repository is known by its runner on Nomad
	w.await(waits, in(router.Completed))
	w.await(long, in(router.Running))
	if started := w.started(); len(started) != 2 {
		t.Errorf("%v were started, want one runner for each job", started)
	}
	if err := w.github.Cancel(long); err != nil {
		t.Fatal(err)
	}
	w.await(long, in(router.Completed))
}
