package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/health"
	"switchyard/router/store/storetest"
	"switchyard/router/telemetry"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/rules"
)

func (s *server) wantText(path string, status int, want ...string) {
	s.t.Helper()
	wants(s.t, s.get(path, status), want...)
}

func TestNowTellsWhatWaitsAndWhy(t *testing.T) {
	s := serve(t, func(c *web.Config) { c.Now = func() time.Time { return t0.Add(7 * time.Hour) } })
	s.wantText("/", http.StatusOK,
		`<dt>Waiting</dt><dd>3<small>`, `<dt>Placing</dt><dd>1<small>`, `<dt>Running</dt><dd>0<small>`,
		"they are decided next", "Nomad looks for a node",
		`class="n">6 h</td>`, // job 1 has waited
		"it is decided now", "Nomad places it when a node has room",
	)
}

// hurt is an app with two troubles.
type hurt struct{ *app }

func (hurt) Status(router.Scope) router.Status {
	changes := []router.Changed{{At: t0.Add(-90 * time.Second), What: "rules.yaml: <line 9>", Who: "<i>ada"}}
	for i := range 4 {
		changes = append(changes, router.Changed{At: t0.Add(-2 * time.Hour), What: fmt.Sprintf("older change %d", i)})
	}
	proof := []router.Proof{{What: "delivery", At: t0.Add(-5 * time.Second)}, {What: "claim"}}
	return router.Status{Status: "degraded", At: t0, Changes: changes, Proof: proof, Troubles: []router.Trouble{
		{Cause: router.CauseRules, Severity: router.Critical, Since: t0.Add(-time.Minute), What: "newer rules were refused: <b>unknown</b> key", Said: "rules.yaml:3:1: " + strings.Repeat("long ", 100) + "end", Fix: "correct the files"},
		{
			Cause: router.CauseNomad, Severity: router.Warning, Since: t0.Add(-time.Hour), What: "2 jobs: Nomad did not take their runners", Said: "<i>refused</i>", Fix: "wait", Jobs: 2,
			Groups: []router.TroubleGroup{{Rule: "linux", Repository: "acme/web", Jobs: 1, Newest: 5, Labels: []string{"<u>x"}}, {Rule: "gpu", Repository: "acme/api", Jobs: 1, Newest: 6}},
		},
	}}
}

func TestNowShowsTrouble(t *testing.T) {
	s := serve(t, func(c *web.Config) { c.App, c.Now = hurt{&app{}}, func() time.Time { return t0 } })
	s.wantText("/", http.StatusOK, `<section class="trouble is-critical"><h2>Newer rules were refused: &lt;b&gt;unknown&lt;/b&gt; key</h2>`, "long end", "Correct the files.",
		"<span class=\"nowrap\">critical, for 1 min</span>, 30 s after this change: rules.yaml: &lt;line 9&gt;",
		"<span class=\"nowrap\">delivery 5.0 s ago</span>", "<span class=\"nowrap\">claim not since the start</span>",
		"<li>rules.yaml: &lt;line 9&gt;, by &lt;i&gt;ada <span class=\"soft nowrap\">1 min 30 s ago</span></li>", "<summary>2 more</summary>", "older change 3",
		`<section class="trouble is-warning">`, "&lt;i&gt;refused", `acme/web</bdi>: <a href="/jobs/5">1 job</a>`, "&lt;u&gt;x")
	s.wantText("/jobs", http.StatusOK, `<div class="bar is-critical" role="status">`, `<strong>Newer rules were refused: &lt;b&gt;`, `· <a href="/">and 1 more</a>`)
}

func TestNowSaysThatAllIsWell(t *testing.T) {
	serve(t).wantText("/", http.StatusOK, `<p class="well">All is well.</p>`)
}

// many is an app with a trouble of many groups, each with words of its own.
type many struct{ *app }

func (many) Status(router.Scope) router.Status {
	t := router.Trouble{Cause: router.CauseNomad, Severity: router.Critical, Since: t0, What: "many", Said: "runner 1 is refused", Fix: "wait", Jobs: 60}
	for i := range 30 {
		g := router.TroubleGroup{Rule: "linux", Repository: fmt.Sprintf("acme/r%d", i), Jobs: 2, Since: t0.Add(time.Duration(i) * time.Minute), Said: fmt.Sprintf("runner %d is refused", i)}
		if i == 29 {
			g.Said = strings.Repeat("other words ", 50) + "<end>"
		}
		t.Groups = append(t.Groups, g)
	}
	return router.Status{Status: "degraded", At: t0, Troubles: []router.Trouble{t}}
}

func TestNowListsTheNewestOfATroubleFirst(t *testing.T) {
	s := serve(t, func(c *web.Config) { c.App, c.Now = many{&app{}}, func() time.Time { return t0.Add(time.Hour) } })
	body := s.get("/", http.StatusOK)
	body = body[strings.Index(body, "<section"):strings.Index(body, `<dl class="stats">`)]
	if newest, older, oldest := strings.Index(body, "acme/r29<"), strings.Index(body, "<summary>22 more</summary>"), strings.Index(body, "acme/r0<"); newest < 0 || newest > older || older > oldest {
		t.Errorf("the newest at %d, others at %d, the oldest at %d: %s", newest, older, oldest, body)
	}
	wants(t, body, "other words &lt;end&gt;</div>", `<a href="/jobs?repo=acme%2Fr29&amp;rule=linux&amp;state=held%2Cqueued%2Cretrying%2Cdispatched%2Cunroutable">2 jobs</a> <span class="soft nowrap">for 31 min</span>`)
	if n := strings.Count(body, "is refused"); n != 1 {
		t.Errorf("the same is said %d times: %s", n, body)
	}
}

// Each cause of a job that waits is said in words of its own, and the end of its reason is not cut.
func TestNowSaysEachCause(t *testing.T) {
	for _, cause := range router.Causes {
		if cause == router.CauseRunning || cause == router.CauseRunnerEnded {
			continue
		}
		if n := web.WaitsFor(cause); n != 1 {
			t.Errorf("%s has %d sentences, want 1", cause, n)
		}
	}
	reason := strings.Repeat("long ", 100) + "<end>"
	s := serve(t, func(c *web.Config) {
		must(t, c.Database.(placeless).Retry(t.Context(), 3, t0, router.CauseDied, reason, nil, t0))
	})
	s.wantText("/jobs", http.StatusOK, "long  … ", "long &lt;end&gt;")
	s.wantText("/", http.StatusOK, "the runner ended with its configuration, before it had a job; another comes", "long &lt;end&gt;</td>")
}

func TestTheLastDayIsDrawn(t *testing.T) {
	c := history(t, 4000)
	wants(t, getPage(t, web.Handler(c), "/").Body.String(), `class="band2"`, `aria-label="Jobs that started in each of the last 24 hours`, "<summary>The numbers</summary>", ">h3</a>", "median of")
}

func TestWhoSeesSomeRepositoriesCountsThoseAlone(t *testing.T) {
	var c web.Config
	serve(t, func(served *web.Config) { c = *served })
	for _, tt := range []struct {
		scope router.Scope
		want  string
	}{{router.Scope{"acme/web"}, "<dt>Waiting</dt><dd>3<"}, {router.Scope{"beta/*"}, "<dt>Waiting</dt><dd>0<"}, {router.Scope{"ACME/*"}, `href="/jobs/3"`}} {
		if body := web.PageFor(c, "/", tt.scope); !strings.Contains(body, tt.want) {
			t.Errorf("Now for %v has no %s: %s", tt.scope, tt.want, body)
		}
	}
}

func TestJobsAreFilteredByAForm(t *testing.T) {
	s := serve(t)
	s.wantText("/jobs?state=&repo=acme%2Fweb&owner=&rule=&label=&since=&until=", http.StatusOK, `href="/jobs/5"`, `href="/jobs/1"`, `value="acme/web"`)
	s.wantText("/jobs?state=queued&limit=2", http.StatusOK, `href="/jobs/5"`, `href="/jobs/4"`, `href="/jobs?cursor=4&amp;limit=2&amp;state=queued" rel="next"`, `<option value="queued" selected>`)
	s.wantText("/jobs?cursor=4&limit=2&state=queued", http.StatusOK, `href="/jobs/3"`, `<a class="button" href="/jobs?limit=2&amp;state=queued">Newest</a>`)
	s.wantText("/jobs?state=held,queued,retrying,dispatched", http.StatusOK, `selected>waiting</option>`, `href="/jobs/1"`)
	s.wantText("/jobs?cause=placing", http.StatusOK, `href="/jobs/1"`, `name="cause" value="placing"`)
	s.wantText("/jobs?rule=other", http.StatusOK, "No job matches")
	s.wantText("/jobs?since=yesterday", http.StatusBadRequest, `role="alert">since &#34;yesterday&#34;: want a time such as`, `value="yesterday"`)
	s.wantText("/runners?state=dispatched", http.StatusOK, "gha-1-1", `href="/jobs/1"`)
	s.wantText("/runners?state=lost", http.StatusOK, "No runner is in that state")
}

// partly is a database that looked at some of the history, and found nothing.
type partly struct{ api.Database }

func (partly) SearchJobs(context.Context, router.JobFilter) ([]router.Job, int64, error) {
	return nil, 77, nil
}

func (partly) SearchRunners(context.Context, router.RunnerFilter) ([]router.Runner, int64, error) {
	return nil, 77, nil
}

func TestASearchThatLookedAtAPartSaysSo(t *testing.T) {
	s := serve(t, func(c *web.Config) { c.Database = partly{c.Database} })
	s.wantText("/jobs?rule=linux", http.StatusOK, "None on this page.", `Not all jobs have been searched yet. <a href="/jobs?cursor=77&amp;rule=linux">Search on</a>`)
	s.wantText("/runners?state=lost", http.StatusOK, "None on this page.", `Not all runners have been searched yet. <a href="/runners?cursor=77-0&amp;state=lost">Search on</a>`)
	for _, path := range []string{"/jobs", "/jobs?rule=linux&cursor=88", "/runners", "/runners?cursor=88-0&state=lost"} {
		s.wantText(path, http.StatusOK, `<p class="none">None on this page.</p>`)
	}
	all := serve(t)
	all.wantText("/jobs?rule=linux&cursor=1", http.StatusOK, "No more jobs.")
	all.wantText("/runners?state=lost&cursor=1-0", http.StatusOK, "No more runners.")
	s.wantText(api.Prefix+"/jobs?rule=linux", http.StatusOK, `"jobs":[],"next_cursor":"77"`)
	s.wantText(api.Prefix+"/runners?state=lost", http.StatusOK, `"runners":[],"next_cursor":"77-0"`)
	if body := all.get("/jobs?rule=linux", http.StatusOK); strings.Contains(body, "searched yet") {
		t.Error("a search that looked at all says otherwise")
	}
}

func TestAJobsPageHasItsLifeAndItsFunnel(t *testing.T) {
	s := serve(t, func(c *web.Config) {
		c.Now = func() time.Time { return t0.Add(7 * time.Hour) }
		c.NomadUI = "http://nomad.example:4646"
	})
	s.wantText("/jobs/1", http.StatusOK,
		"Nomad has no node for it now", "no node has memory left", `<td class="n">3</td>`, `<td class="n">0 <span class="small soft">−3</span></td>`, "with enough memory free", "label large",
		`href="http://nomad.example:4646/ui/jobs/gha-1-1"`,
		"<strong>5 h</strong> <span class=\"soft\">until its runner was on Nomad</span>", "<strong>1 h</strong> so far <span class=\"soft\">until it had a node</span>",
		"+ 5 h", "Next: Nomad places it when a node has room.", "by rule <strong>linux</strong>",
	)
	s.wantText("/jobs/2", http.StatusOK, "until it was denied") // it never had a runner
	if body := s.get("/jobs/3", http.StatusOK); strings.Contains(body, "Its page on GitHub") || !strings.Contains(body, "What the rules in force decide") {
		t.Errorf("an undecided job without a page: %s", body)
	}
}

func TestOperatorsChangeAJobOnItsPage(t *testing.T) {
	s := serve(t)
	for _, tt := range []struct{ path, run, to string }{
		{"/jobs/2/retry", "", "/jobs/2"}, {"/jobs/1/cancel", "", "/jobs/1"}, {"/jobs/1/cancel", "run", "/jobs/1"}, {"/runners/gha-1-1/stop", "force", "/jobs/1"},
	} {
		if _, to := s.submit(tt.path, url.Values{tt.run: {"true"}}, http.StatusSeeOther); to != tt.to {
			t.Errorf("POST %s leads to %q, want %q", tt.path, to, tt.to)
		}
	}
	want := []string{"retry 2", "cancel 1 false", "cancel 1 true", "stop gha-1-1 true"}
	if diff := cmp.Diff(want, s.app.did); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	s.app.fail = &router.ConflictError{Reason: "job 2 has ended"}
	if body, _ := s.submit("/jobs/2/retry", nil, http.StatusConflict); !strings.Contains(body, `role="alert">job 2 has ended.`) || !strings.Contains(body, "Timeline") {
		t.Errorf("a conflict is not shown on the page of the job: %s", body)
	}
	s.submit("/jobs/99/retry", nil, http.StatusNotFound)
	s.submit("/runners/gha-99-1/stop", nil, http.StatusNotFound)
}

// pageAddresses are those of the navigation, a job in each state, and lists as people filter them.
func pageAddresses(c web.Config, jobs []int64) (all []string) {
	for _, r := range web.PagePaths(c) {
		if !strings.Contains(r, "{") {
			all = append(all, r)
		}
	}
	for _, id := range jobs {
		all = append(all, "/jobs/"+strconv.FormatInt(id, 10))
	}
	return append(all, "/jobs?state=held,queued,retrying,dispatched", "/jobs?rule=h3", "/jobs?label=team-5", "/jobs?label=nobody", "/jobs?repo=owner-0/repository-17",
		"/jobs?owner=nobody", "/jobs?owner=nobody&label=linux", "/jobs?rule=h3&label=team-7", "/jobs?owner=owner-30&state=completed&label=linux", "/jobs?state=completed&cursor=5000",
		"/jobs?since=2020-01-01T00:00:00Z", "/jobs?since=2020-01-01T00:00:00Z&rule=h3&label=team-7", "/jobs?until="+time.Now().AddDate(0, 0, -15).UTC().Format(time.RFC3339), "/runners?state=dispatched,claimed,online,busy", "/runners?state=lost", "/jobs?limit=500&label=team-1&state=held", "/labels?q=gpu", "/playground?labels=linux&event=push")
}

// scopedAddresses are those of a team that has jobs and no runner.
var scopedAddresses = []string{"/", "/jobs", "/jobs?state=completed", "/runners", "/runners?state=finished", "/runners?state=lost", "/runners?state=dispatched,claimed,online,busy"}

func history(t testing.TB, n int) web.Config {
	path := filepath.Join(t.TempDir(), "history.db")
	storetest.Create(t, path)
	storetest.History(t, path, n, 30*24*time.Hour, time.Now())
	st := storetest.Open(t, path)
	t.Cleanup(func() { _ = st.Close() })
	return web.Config{App: &app{}, Database: st}
}

func getPage(t testing.TB, h http.Handler, path string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8081"+path, nil))
	if rec.Code != http.StatusOK {
		t.Errorf("GET %s = %d: %.300s", path, rec.Code, rec.Body)
	}
	return rec
}

const mostBytes = 200_000 // of a page, without the editor

func TestPagesOfALongHistoryAreSmall(t *testing.T) {
	n := 5000
	c := history(t, n)
	h := web.Handler(c)
	beside := len(readAll(t, "assets/app.css", "assets/app.js")) // what each page loads
	var last []int64
	for id := int64(n - 20); id <= int64(n); id++ {
		last = append(last, id)
	}
	for _, path := range pageAddresses(c, last) {
		if strings.Contains(path, "limit=500") {
			continue
		}
		if size := beside + getPage(t, h, path).Body.Len(); size > mostBytes {
			t.Errorf("GET %s has %d bytes with style and script, want at most %d", path, size, mostBytes)
		}
	}
}

// well is an app that asks its database whether all is well.
type well struct {
	*app
	health *health.Health
}

func (w well) Status(within router.Scope) router.Status {
	return w.health.Status(within)
}

// BenchmarkPages measures each page at the server, with up to a million jobs of a month
// in the database, 1000 rules and 200 versions of them: the first time that
// it is asked for, as nothing is kept then, and the median and the worst of the
// others. Those of a team are asked for by somebody who may see the team's jobs alone, and
// nothing is kept of them.
func BenchmarkPages(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("jobs=%d", n), func(b *testing.B) { benchmarkPages(b, n) })
	}
}

func benchmarkPages(b *testing.B, n int) {
	c := history(b, n)
	c.App = well{&app{}, health.New(health.Config{
		Store: c.Database.(health.Store), Metrics: telemetry.NewMetrics(), Now: time.Now,
		Rules: (&app{}).RulesStatus, FirstSync: func() bool { return false }, Silent: func() (time.Duration, string) { return 0, "" },
		NotEvaluating: func() (time.Duration, string) { return 0, "" }, Lost: func() (int, time.Time) { return 0, time.Time{} }, Polls: func() []router.Polling { return nil },
		Overflows: func() []router.OverflowStatus { return nil }, Warm: func() []router.WarmTrouble { return nil }, Replicas: func(time.Time) []router.Trouble { return nil },
	}, "started")}
	rulebook, source := newBook(), []byte(goodRules)
	for i := range 1000 {
		source = fmt.Appendf(source, "  - { name: no-%d, if: has(\"linux\"), deny: no }\n", i)
	}
	for range 200 {
		rulebook.put(router.RulesEdit{Files: []rules.File{{Name: "rules.yaml", Source: source}}, Who: "somebody", Origin: "applied"})
	}
	c.Rulebook = rulebook
	measure := func(name string, page func() int) {
		b.Run(strings.NewReplacer("/", "·").Replace(name), func(b *testing.B) {
			var times []time.Duration
			size := 0
			for b.Loop() {
				began := time.Now()
				size = page()
				times = append(times, time.Since(began))
			}
			first := times[0]
			slices.Sort(times)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(ms(first), "first-ms")
			b.ReportMetric(ms(times[len(times)/2]), "p50-ms")
			b.ReportMetric(ms(times[len(times)-1]), "worst-ms")
			b.ReportMetric(float64(size)/1000, "kB")
			b.ReportMetric(0, "ns/op")
		})
	}
	h := web.Handler(c)
	for _, path := range pageAddresses(c, []int64{int64(n) - 3, int64(n) - 4, int64(n) - 5}) {
		measure(path, func() int { return getPage(b, h, path).Body.Len() })
	}
	for _, path := range scopedAddresses {
		measure("team:"+path, func() int {
			return len(web.PageFor(c, path, router.Scope{fmt.Sprintf("owner-%d/*", storetest.HistoryOwners)}))
		})
	}
	for _, path := range []string{"/labels", "/usage"} { // counted beside the pages, and as long as the database is open
		for strings.Contains(getPage(b, h, path).Body.String(), "data-again") {
			time.Sleep(100 * time.Millisecond)
		}
	}
}
