package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/router/store/postgrestest"
)

// A dbOutage is what replicas live through when their database fails: deliveries come all the while.
type dbOutage struct {
	*replicas
	database string // the URL of a connection that does not fail
	client   *http.Client

	readable bool // it fails changes only, so that claims of unknown tokens are refused as ever

	mu       sync.Mutex
	accepted int
	refused  []int64 // jobs whose deliveries were answered 503, and are not accepted yet
}

// newDBOutage starts replicas. The database is at the URL at, for them at the URL by.
func newDBOutage(t *testing.T, n int, by, at string) *dbOutage {
	t.Helper()
	o := &dbOutage{database: at, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	t.Cleanup(o.client.CloseIdleConnections)
	o.replicas = newReplicas(t, n, by)
	o.leader()
	return o
}

// deliver delivers a job to one of the replicas, and reports whether that accepted it. It may
// say that it could not; GitHub gives up an answer that does not come.
func (o *dbOutage) deliver(id int64) bool {
	p := o.all[int(id)%len(o.all)]
	status := send(o.t.Context(), o.client, p.url, fmt.Sprintf("guid-%d", id), payload(id, "self-hosted", "linux", "x64"))
	o.mu.Lock()
	defer o.mu.Unlock()
	switch status {
	case http.StatusAccepted:
		o.accepted++
		return true
	case http.StatusServiceUnavailable:
		o.refused = append(o.refused, id)
	default:
		o.t.Errorf("delivery %d was answered %d, want 202 or 503", id, status)
	}
	return false
}

// burst delivers n jobs at the same time, and returns how many were accepted.
func (o *dbOutage) burst(n int) int {
	var all sync.WaitGroup
	var accepted atomic.Int64
	for range n {
		all.Go(func() {
			if o.deliver(o.jobs.Add(1)) {
				accepted.Add(1)
			}
		})
	}
	all.Wait()
	return int(accepted.Load())
}

func (o *dbOutage) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted
}

// stream delivers jobs until the function that it returns is called, with a pause after each,
// and a longer one where it is refused. It returns when some were accepted.
func (o *dbOutage) stream() (end func()) {
	ctx, cancel := context.WithCancel(o.t.Context())
	var all sync.WaitGroup
	was := o.count()
	for range 16 {
		all.Go(func() {
			for ctx.Err() == nil {
				pause := 20 * time.Millisecond
				if !o.deliver(o.jobs.Add(1)) {
					pause *= 5
				}
				router.Pause(ctx, pause)
			}
		})
	}
	o.until("deliveries are accepted", func() bool { return o.count() >= was+32 })
	return func() {
		cancel()
		all.Wait()
	}
}

// until waits for something.
func (o *dbOutage) until(what string, ok func() bool) {
	o.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			o.logs()
			o.t.Fatalf("it never came to this: %s", what)
		}
	}
}

// logs shows what the replicas say, without what is usual.
func (o *dbOutage) logs() {
	for _, p := range o.all {
		for line := range strings.Lines(p.log.String()) {
			if !strings.Contains(line, `"msg":"delivery stored"`) && !strings.Contains(line, `"msg":"job dispatched"`) {
				o.t.Logf("%s: %s", p.admin, line)
			}
		}
	}
}

// ready waits until all replicas are ready, or none is and each says why.
func (o *dbOutage) ready(want bool, says string) {
	o.t.Helper()
	for _, p := range o.all {
		var r server.Readiness
		o.until(fmt.Sprintf("ready: %t, because %q", want, says), func() bool {
			resp, err := http.Get(p.admin + "/readyz")
			must(o.t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			must(o.t, err)
			r = server.Readiness{}
			must(o.t, json.Unmarshal(body, &r))
			return (resp.StatusCode == http.StatusOK) == want && strings.Contains(r.Reason, says)
		})
		if !want {
			o.t.Logf("/readyz: %s", r.Reason)
		}
	}
}

// claims reports whether each replica answers a claim so.
func (o *dbOutage) claims(want int) bool {
	var all sync.WaitGroup
	var other atomic.Bool
	for _, p := range o.all {
		all.Go(func() {
			req, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, "http://"+p.listen+router.ClaimPath, nil)
			must(o.t, err)
			req.Header.Set("Authorization", "Bearer nobody's")
			resp, err := o.client.Do(req)
			if err != nil {
				o.t.Errorf("claim: %v", err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				other.Store(true)
			}
		})
	}
	all.Wait()
	return !other.Load()
}

// metric returns the value of a metric of a process.
func (p *process) metric(name string) (v float64) {
	resp, err := http.Get(p.admin + "/metrics")
	must(p.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(p.t, err)
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			_, err := fmt.Sscan(rest, &v)
			must(p.t, err)
			return v
		}
	}
	p.t.Errorf("there is no metric %s", name)
	return 0
}

// within reports whether the replicas have no more goroutines and memory than so many requests need.
func (o *dbOutage) within(requests int) bool {
	for _, p := range o.all {
		if n, mib := p.metric("go_goroutines"), p.metric("go_memstats_heap_inuse_bytes")/(1<<20); n > float64(200+4*requests) || mib > 256 {
			o.t.Logf("%v goroutines and %.0f MiB for %d requests", n, mib, requests)
			return false
		}
	}
	return true
}

// last has the database fail in the middle of many deliveries, and mended: nothing is accepted
// meanwhile, and each replica says why.
func (o *dbOutage) last(fail, mend func(), says string) {
	o.t.Helper()
	end := o.stream()
	fail()
	const crowd = 200
	var all sync.WaitGroup
	all.Go(end)
	all.Go(func() {
		if n := o.burst(crowd); n > 0 {
			o.t.Errorf("%d deliveries were accepted while the database could not have them", n)
		}
	})
	if !o.readable {
		all.Go(func() {
			if !o.claims(http.StatusServiceUnavailable) {
				o.t.Error("a claim was not answered 503")
			}
		})
	}
	for _, p := range o.all {
		all.Go(func() {
			router.Pause(o.t.Context(), time.Second) // the last answer is shown for so long
			p.leads()                                // asks /readyz, which then knows sooner
		})
	}
	all.Go(func() {
		if !o.within(crowd) {
			o.t.Error("a replica takes too much")
		}
	})
	all.Wait()
	o.ready(false, says)
	mend()
	o.over()
}

// over waits until the replicas work again, and delivers what was refused.
func (o *dbOutage) over() {
	o.t.Helper()
	o.ready(true, "")
	o.leader()
	o.until("claims are answered 401", func() bool { return o.claims(http.StatusUnauthorized) })
	o.burst(16)
	o.until("what was refused is accepted", func() bool {
		o.mu.Lock()
		again := o.refused
		o.refused = nil
		o.mu.Unlock()
		var all sync.WaitGroup
		next := make(chan int64)
		for range 16 {
			all.Go(func() {
				for id := range next {
					o.deliver(id)
				}
			})
		}
		for _, id := range again {
			next <- id
		}
		close(next)
		all.Wait()
		return len(o.refused) == 0
	})
}

// check ends the test: what was accepted is in the database once, and has one runner.
func (o *dbOutage) check() {
	o.t.Helper()
	if o.t.Failed() {
		o.logs()
		return
	}
	for id := range o.jobs.Load() {
		o.registered(id + 1)
	}
	o.client.CloseIdleConnections()
	o.until("what the requests took is free again", func() bool { return o.within(0) })
	o.once()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, o.database)
	must(o.t, err)
	defer conn.Close(ctx)
	var deliveries, jobs, received int64
	must(o.t, conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM deliveries), (SELECT count(*) FROM jobs), (SELECT count(*) FROM events WHERE source = 'webhook')`).Scan(&deliveries, &jobs, &received))
	if n := o.jobs.Load(); deliveries != n || jobs != n || received != n {
		o.t.Errorf("of %d jobs the database has %d deliveries, %d jobs and %d events that one was received", n, deliveries, jobs, received)
	}
	o.t.Logf("%d jobs", jobs)
}

// exec runs a statement in the database, as an administrator.
func (o *dbOutage) exec(statement string) {
	o.t.Helper()
	conn, err := pgx.Connect(o.t.Context(), o.database)
	must(o.t, err)
	defer conn.Close(o.t.Context())
	_, err = conn.Exec(o.t.Context(), statement)
	must(o.t, err)
}

func TestTheDatabaseIsDown(t *testing.T) {
	t.Parallel()
	database := postgrestest.NewCluster(t)
	o := newDBOutage(t, 2, database.URL, database.URL)
	end := o.stream()
	database.Restart(t)
	end()
	o.over()
	o.last(func() { database.Stop(t) }, func() { database.Restart(t) }, "check that PostgreSQL runs")
	o.check()
}

func TestTheDatabaseDoesNotAnswer(t *testing.T) {
	t.Parallel()
	at := postgrestest.URL(t)
	proxy := postgrestest.NewProxy(t, at)
	o := newDBOutage(t, 1, proxy.URL, at)
	o.last(func() { proxy.Freeze(true) }, func() { proxy.Freeze(false) }, "check")
	o.check()
}

func TestTheDatabaseIsSlow(t *testing.T) {
	t.Parallel()
	at := postgrestest.URL(t)
	proxy := postgrestest.NewProxy(t, at)
	o := newDBOutage(t, 1, proxy.URL, at)
	end := o.stream()
	proxy.Delay(10 * time.Millisecond)
	was := o.count()
	o.until("deliveries are accepted", func() bool { return o.count() > was+50 })
	end()
	proxy.Delay(0)
	o.over()
	o.check()
}

func TestCommitsAreCutOff(t *testing.T) {
	t.Parallel()
	at := postgrestest.URL(t)
	proxy := postgrestest.NewProxy(t, at)
	o := newDBOutage(t, 2, proxy.URL, at)
	end := o.stream()
	for range 20 {
		was := o.count()
		proxy.CutNextCommit()
		o.until("deliveries are accepted", func() bool { return o.count() > was+16 })
	}
	end()
	o.over()
	o.check()
}

func TestTheDiskOfTheDatabaseIsFull(t *testing.T) {
	t.Parallel()
	at := postgrestest.URL(t)
	o := newDBOutage(t, 1, at, at)
	o.readable = true
	o.last(func() {
		o.exec(`
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	RAISE 'could not extend file "base/5/16384": No space left on device' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION full_disk()`)
	}, func() { o.exec(`DROP FUNCTION full_disk CASCADE`) }, "free space on the disk of the PostgreSQL server")
	o.check()
}

func TestTheDatabaseHasNoConnectionsLeft(t *testing.T) {
	t.Parallel()
	at := postgrestest.URL(t)
	u, err := url.Parse(at)
	must(t, err)
	proxy := postgrestest.NewProxy(t, at)
	o := newDBOutage(t, 1, proxy.URL, at)
	limit := func(n int) {
		postgrestest.Exec(t, fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", u.User.Username(), n))
	}
	o.last(func() {
		limit(0)
		proxy.Cut()
	}, func() { limit(-1) }, "let PostgreSQL take more connections")
	o.check()
}

func TestThePasswordOfTheDatabaseIsRotated(t *testing.T) {
	t.Parallel()
	database := postgrestest.NewCluster(t)
	database.Exec(t, `CREATE ROLE guarded; CREATE ROLE switchyard LOGIN PASSWORD 'first' IN ROLE guarded; GRANT ALL ON SCHEMA public TO switchyard`)
	proxy := postgrestest.NewProxy(t, database.URL)
	u, err := url.Parse(proxy.URL)
	must(t, err)
	u.User = url.User("switchyard")
	file := filepath.Join(t.TempDir(), "pgpass")
	password := func(is string) { must(t, os.WriteFile(file, []byte("*:*:*:*:"+is+"\n"), 0o600)) }
	password("first")
	q := u.Query()
	q.Set("passfile", file)
	u.RawQuery = q.Encode()
	o := newDBOutage(t, 2, u.String(), database.URL)
	o.last(func() {
		database.Exec(t, `ALTER ROLE switchyard PASSWORD 'second'`)
		proxy.Cut()
	}, func() { password("second") }, "check the role and its password")
	o.check()
}

func TestTheDatabaseFailsOver(t *testing.T) {
	t.Parallel()
	first := postgrestest.NewCluster(t)
	second := first.Standby(t)
	both := strings.Join([]string{host(t, first.URL), host(t, second.URL)}, ",")
	by := "postgres://postgres@/postgres?" + url.Values{"host": {both}}.Encode()
	o := newDBOutage(t, 2, by, second.URL)
	o.last(func() { first.Stop(t) }, func() { second.Exec(t, "SELECT pg_promote()") }, "promote a standby, or name the server that takes changes: this one is read-only")
	end := o.stream()
	first.StartAsStandby(t) // it is asked first again
	end()
	o.over()
	o.check()
}

// The first server is gone without a word, and has been replaced by the second.
func TestTheMachineOfTheDatabaseIsGone(t *testing.T) {
	t.Parallel()
	at := postgrestest.URL(t)
	first, second := postgrestest.NewProxy(t, at), postgrestest.NewProxy(t, at)
	second.Refuse(true)
	one, err := url.Parse(first.URL)
	must(t, err)
	two, err := url.Parse(second.URL)
	must(t, err)
	q := one.Query()
	q.Set("port", q.Get("port")+","+two.Query().Get("port"))
	q.Set("host", q.Get("host")+","+two.Query().Get("host"))
	one.RawQuery = q.Encode()
	o := newDBOutage(t, 1, one.String(), at)
	end := o.stream()
	first.Freeze(true)
	end()
	second.Refuse(false)
	o.until("the second server is found", func() bool { return o.deliver(o.jobs.Add(1)) })
	o.over()
	o.check()
}

func host(t *testing.T, database string) string {
	u, err := url.Parse(database)
	must(t, err)
	return u.Query().Get("host")
}
