package server_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"switchyard/router"
	"switchyard/router/server"
)

// The jobs of one owner, however many, hold up no job of another.
func TestDueJobsAreTakenInTurn(t *testing.T) { bubble(t, testDueJobsAreTakenInTurn) }
func testDueJobsAreTakenInTurn(t *testing.T) {
	st := openStore(t)
	of := func(id int64, owner, repo string) router.Delivery {
		d := delivery(id, "queued", "self-hosted", "linux")
		d.Job.Repo.Owner, d.Job.Repo.Name, d.Job.Repo.FullName = owner, repo, owner+"/"+repo
		return d
	}
	const many = 300 // more than are read at once
	var all sync.WaitGroup
	for id := range int64(many) {
		all.Go(func() {
			if _, err := st.Receive(t.Context(), of(id+1, "acme", fmt.Sprint("repo-", id%2))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	must(t, errOf(st.Receive(t.Context(), of(1001, "beta", "web"))))

	var mu sync.Mutex
	var order []int64
	first, goOn := make(chan struct{}), make(chan struct{})
	nomad := &cluster{within: func(r router.StartRequest) {
		mu.Lock()
		order = append(order, r.Job.ID)
		n := len(order)
		mu.Unlock()
		if n == 1 {
			close(first)
			<-goOn
		}
	}}
	r := start(t, st, nomad, &hub{}, func(c *server.Config) { c.Senders = 1 })
	<-first
	synctest.Wait() // as many are in hand as may be
	r.deliver(of(1002, "gamma", "web"))
	close(goOn)
	r.await(1002, in(router.Dispatched))
	r.await(many, in(router.Dispatched))
	mu.Lock()
	defer mu.Unlock()
	if at := slices.Index(order, 1001); at < 0 || at > 2 {
		t.Errorf("another owner's only job is started after %d of one who has %d", at, many)
	}
	if at := slices.Index(order, 1002); at < 0 || at > 150 {
		t.Errorf("a job that comes later is started after %d of another owner, who has %d", at, many)
	}
}
