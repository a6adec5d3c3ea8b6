package server_test

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/server"
	"switchyard/router/store"
)

func TestNoJobIsLostWithItsDeliveries(t *testing.T) {
	bubble(t, testNoJobIsLostWithItsDeliveries)
}
func testNoJobIsLostWithItsDeliveries(t *testing.T) {
	w := newWorld(t, plainRule)
	w.GitHub.SetDeliveryFaults(githubsim.DeliveryFaults{Lost: 0.3, Doubled: 0.2, Late: 0.3, LateBy: 200 * time.Millisecond, Seed: 1})
	w.Start(func(c *server.Config) { c.Deliveries = 50 * time.Millisecond })
	var ids []int64
	for range 20 {
		ids = append(ids, w.Queue("self-hosted", "linux"))
	}
	for _, id := range ids {
		w.Await(id, in(router.Completed))
	}
	lost, again := 0, 0
	for _, d := range w.GitHub.Deliveries() {
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
	bubble(t, testWhatFailedWhileWeWereDownIsDeliveredAgain)
}
func testWhatFailedWhileWeWereDownIsDeliveredAgain(t *testing.T) {
	w := newWorld(t, plainRule)
	soon := func(c *server.Config) { c.Deliveries = 50 * time.Millisecond }
	w.Start(soon)
	w.Await(w.Queue("self-hosted", "linux"), in(router.Completed)) // so that the webhook is known
	w.Stop()
	id := w.Queue("self-hosted", "linux")
	must(t, w.GitHub.Flush(t.Context()))
	w.Start(soon)
	w.Await(id, in(router.Completed))
}

func TestWithTheDatabaseDeletedWaitingJobsAreFound(t *testing.T) {
	bubble(t, testWithTheDatabaseDeletedWaitingJobsAreFound)
}
func testWithTheDatabaseDeletedWaitingJobsAreFound(t *testing.T) {
	w := newWorld(t, plainRule)
	w.Start()
	long := w.GitHub.Queue(t.Context(), githubsim.JobSpec{
		Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour,
	})
	w.Await(long, in(router.Running))
	w.Stop()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(w.Database + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	waits := w.Queue("self-hosted", "linux")
	must(t, w.GitHub.Flush(t.Context()))
	w.Start() // the repository is known by its runner on Nomad
	w.Await(waits, in(router.Completed))
	w.Await(long, in(router.Running))
	if started := w.Started(); len(started) != 2 {
		t.Errorf("%v were started, want one runner for each job", started)
	}
	must(t, w.GitHub.Cancel(long))
	w.Await(long, in(router.Completed))
}

// What a store refused is not left until the next sweep, which may be minutes away.
func TestWhatAFullDiskRefusedIsDeliveredAgainAtOnce(t *testing.T) {
	bubble(t, testWhatAFullDiskRefusedIsDeliveredAgainAtOnce)
}
func testWhatAFullDiskRefusedIsDeliveredAgainAtOnce(t *testing.T) {
	w := newWorld(t, plainRule)
	var disk *full
	w.Start(func(c *server.Config) {
		disk = &full{Store: c.Store.(Store)}
		c.Store, c.Tick = disk, 5*time.Second
	})
	w.Await(w.Queue("self-hosted", "linux"), in(router.Completed)) // so that the webhook is known
	disk.disk.Store(true)
	var ids []int64
	for range 5 {
		ids = append(ids, w.Queue("self-hosted", "linux"))
	}
	must(t, w.GitHub.Flush(t.Context()))
	readyz(t, w.App, "the disk is full", func(code int, _ server.Readiness) bool { return code == http.StatusServiceUnavailable })
	time.Sleep(30 * time.Second)
	for _, id := range ids {
		if _, err := w.Store.Job(t.Context(), id); err == nil {
			t.Fatalf("job %d is known: the disk was not full", id)
		}
	}
	disk.disk.Store(false)
	mended := time.Now()
	for _, id := range ids {
		w.Await(id, in(router.Completed))
	}
	if took := time.Since(mended); took > 10*time.Second {
		t.Errorf("the last job was served %s after there was room again, want a few seconds", took)
	}
}

// Of the jobs that came after a copy of the database was made, GitHub has all
// deliveries as arrived.
func TestWithACopyOfTheDatabaseRestoredLaterJobsAreFound(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		virtual(t, fmt.Sprintf("older than GitHub's deliveries: %t", old), func(t *testing.T) {
			w := newWorld(t, `
rules:
  - name: linux
    jobspec: docker-linux
    resources: { memory: 60GiB } # of which the node has 4
`)
			w.Start()
			w.Await(w.Queue("self-hosted", "linux"), in(router.Completed))
			backup := w.Database + ".backup"
			must(t, store.Backup(t.Context(), w.Database, backup))
			var ids []int64
			for range 5 { // served
				ids = append(ids, w.Queue("self-hosted", "linux"))
			}
			for _, id := range ids {
				w.Await(id, in(router.Completed))
			}
			var running []int64
			for range 4 {
				id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{
					Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Hour,
				})
				w.Await(id, in(router.Running))
				running = append(running, id)
			}
			for range 10 { // dispatched, and no node has room
				ids = append(ids, w.Queue("self-hosted", "linux"))
			}
			for _, id := range ids[5:] {
				w.Await(id, in(router.Dispatched))
			}
			w.Stop()
			began := len(w.Started())

			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(w.Database + suffix); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			must(t, os.Rename(backup, w.Database))
			var change []func(*server.Config)
			if old {
				w.GitHub.ForgetDeliveries()
				change = append(change, later(80*time.Hour))
			}
			w.Start(change...)
			for _, id := range running {
				w.Await(id, in(router.Running))
			}
			for _, id := range running[1:] {
				must(t, w.GitHub.Cancel(id))
			}
			for i, id := range ids {
				if old && i < 5 {
					continue // it has ended, and nothing reports it
				}
				w.Await(id, in(router.Completed))
			}
			w.Await(running[0], in(router.Running))
			if n := len(w.Started()) - began; n > 10 {
				t.Errorf("%d runners were started for 10 jobs that wait: %v", n, w.Started())
			}
		})
	}
}
