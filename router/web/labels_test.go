package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/rules"
)

// asked is a database that returns this demand, whatever the scope.
type asked struct {
	api.Database

	mu     sync.Mutex
	demand []router.Demand
	fail   error
	times  int
	within router.Scope
	since  time.Time
}

func (b *asked) Demand(_ context.Context, within router.Scope, since time.Time) ([]router.Demand, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times++
	b.within, b.since = within, since
	return b.demand, b.fail
}

func (b *asked) read() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.times
}

// counted waits for the page of labels until what jobs asked for is counted.
func (s *server) counted(path string) string {
	s.t.Helper()
	for {
		if page := s.get(path, http.StatusOK); !strings.Contains(page, "data-again") {
			return page
		}
		time.Sleep(time.Millisecond)
	}
}

// ruled is an app with other rules.
type ruled struct {
	*app
	set *rules.Set
}

func (r ruled) Rules() *rules.Set { return r.set }

func parse(t *testing.T, text string) *rules.Set {
	t.Helper()
	set, err := rules.Parse("rules.yaml", []byte(text))
	must(t, err)
	return set
}

const catalogue = `version: 1
labels:
  self-hosted: {}
  linux: {}
  arm64: { constraints: ['${attr.cpu.arch} = arm64'] }
  gpu: { devices: [{ name: nvidia/gpu, count: 1 }] }
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 32 }, resources: { cores: '${{ param.cpu }}' } }
  "zone=*": { param: { name: zone, type: string, one_of: [a, b] }, constraints: ['${meta.zone} != ${{ param.zone }}'], node_pool: far }
  "run-*": {}
  big: { resources: { cpu: 8000, memory: 16GiB, disk: 1GiB } }
rules:
  - { name: linux, if: has("linux"), jobspec: docker-linux }
  - { name: beta, if: has("beta") and has("linux"), jobspec: docker-linux }
`

func TestLabelsAreACatalogue(t *testing.T) {
	db := &asked{demand: []router.Demand{
		{Labels: []string{"self-hosted", "Linux", "CPU=4"}, Jobs: 3, Waits: []time.Duration{2 * time.Second, time.Minute}},
		{Labels: []string{"linux", "run-7", "linus", "<i>x"}, Jobs: 2},
	}}
	var late atomic.Int64
	s := serve(t, func(c *web.Config) {
		db.Database, c.Database = c.Database, db
		c.App = ruled{&app{}, parse(t, catalogue)}
		c.Now = func() time.Time { return t0.Add(time.Duration(late.Load())) }
	})
	page := s.counted("/labels")
	wants(t, page,
		`id="label-arm64"`, "Only nodes whose CPU architecture is arm64", "${attr.cpu.arch} = arm64",
		"Device: 1 × nvidia/gpu", "runs-on: [self-hosted, linux, gpu]", `href="/playground?labels=self-hosted%2c%20linux%2c%20gpu"`,
		"a whole number from 1 to 32", "Reserved cores: at least what the label says", "one of a, b", "metadata zone is not what the label says", "Only nodes of the pool far",
		"CPU: at least 8000 MHz", "Memory: at least 16GiB", "Disk: at least 1GiB", "still fits jobs without it", "Write <code><bdi>run-${{ github.run_id }}</bdi></code>", "<code>runs-on: [self-hosted, linux, &#39;run-${{ github.run_id }}&#39;]</code>", "only rule conditions mention it",
		`<a href="/jobs?label=self-hosted">3 jobs</a>`, `<a href="/jobs?label=linux">5 jobs</a>`, "median wait 2.0 s,<br>95 % within 2.0 s", "none has a runner yet", "not used in 7 days",
		`<bdi>linus</bdi>`, `&lt;i&gt;x`,
	)
	if entry, _, _ := strings.Cut(page[strings.Index(page, `id="label-run-`):], "</section>"); strings.Count(entry, "run-1") != 1 { // the playground decides a job, so it has one
		t.Errorf("the entry of run-*:\n%s", entry)
	}
	if strings.Contains(page, "<i>x") || db.within != nil || !db.since.Equal(t0.Add(-7*24*time.Hour)) {
		t.Errorf("within %v since %v:\n%s", db.within, db.since, page)
	}
	if s.get("/labels", http.StatusOK); db.read() != 1 {
		t.Errorf("the database was read %d times for two pages, want once", db.read())
	}
	for late.Store(int64(time.Hour)); db.read() < 2; time.Sleep(time.Millisecond) { // an hour later they are read again
		s.get("/labels", http.StatusOK)
	}
	for query, want := range map[string]string{"ARCHITECTURE": "arm64", "nvidia": "gpu", "beta": "beta", "whole+number": "cpu=*", "far": "zone=*"} {
		found := s.get("/labels?q="+query, http.StatusOK)
		if n := strings.Count(found, `id="label-`); n != 1 || !strings.Contains(found, `id="label-`+want+`"`) {
			t.Errorf("a search for %s finds %d labels, want %s", query, n, want)
		}
	}
	if none := s.get("/labels?q=%3Cb%3E", http.StatusOK); !strings.Contains(none, "No label matches “&lt;b&gt;”") {
		t.Errorf("a search that finds nothing: %s", none)
	}
	s.get("/labels?x=1", http.StatusBadRequest)

	db.mu.Lock()
	db.fail = errors.New("the disk is gone")
	db.mu.Unlock()
	late.Store(int64(3 * time.Hour))
	for page = s.get("/labels", http.StatusOK); !strings.Contains(page, "not available now"); page = s.get("/labels", http.StatusOK) {
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(page, `id="label-gpu"`) || strings.Contains(page, "the disk") {
		t.Errorf("with an unreadable database: %s", page)
	}
	if !strings.Contains(s.log.String(), "the disk is gone") {
		t.Errorf("the log has not why: %s", s.log.String())
	}
}

func TestNoLabelsAreSaidToBeNone(t *testing.T) {
	s := serve(t, func(c *web.Config) {
		c.App = ruled{&app{}, parse(t, "version: 1\nrules: [{ name: all, if: 'repo.private', jobspec: docker-linux }]\n")}
	})
	if page := s.get("/labels", http.StatusOK); !strings.Contains(page, "self-hosted") && !strings.Contains(page, "The rules have no labels.") {
		t.Errorf("without a vocabulary: %s", page)
	}
}

// A page of very many labels, with very long texts, stays small.
func TestManyLabelsStayOnASmallPage(t *testing.T) {
	var text strings.Builder
	text.WriteString("version: 1\nlabels:\n")
	for i := range 600 {
		fmt.Fprintf(&text, "  label-number-%d: { constraints: ['${meta.some-key} = %s'] }\n", i, strings.Repeat("x", 100))
	}
	text.WriteString("rules:\n")
	for i := range 10 {
		fmt.Fprintf(&text, "  - { name: rule-number-%d, if: 'has(\"label-number-%d\")', jobspec: docker-linux }\n", i, i)
	}
	db := &asked{}
	for i := range 5000 {
		db.demand = append(db.demand, router.Demand{Labels: []string{fmt.Sprint(i, strings.Repeat("y", 240))}, Jobs: 1})
	}
	s := serve(t, func(c *web.Config) {
		db.Database, c.Database = c.Database, db
		c.App = ruled{&app{}, parse(t, text.String())}
	})
	if page := s.counted("/labels"); len(page) > 200_000 || !strings.Contains(page, "more labels") {
		t.Errorf("the page has %d bytes, want fewer than 200,000", len(page))
	}
}

// While the jobs are counted the page is there, and says so.
func TestLabelsDoNotWaitForTheirCounts(t *testing.T) {
	db := &asked{demand: []router.Demand{{Labels: []string{"linux"}, Jobs: 3}}}
	s := serve(t, func(c *web.Config) { db.Database, c.Database = c.Database, db })
	db.mu.Lock() // the database does not answer
	if page := s.get("/labels", http.StatusOK); !strings.Contains(page, "data-again") || !strings.Contains(page, `id="label-linux"`) || strings.Contains(page, "not asked for") {
		t.Errorf("while the jobs are counted: %s", page)
	}
	db.mu.Unlock()
	if page := s.counted("/labels"); !strings.Contains(page, "3 jobs") {
		t.Errorf("after it: %s", page)
	}
}

// A team sees what its own jobs asked for, and begins in the playground with a
// repository of its own.
func TestTeamsSeeTheirOwnLabels(t *testing.T) {
	db := &asked{}
	s := guarded(t, func(c *web.Config) {
		db.Database, c.Database = c.Database, db
	})
	for {
		if page := s.ask(http.MethodGet, "/labels", "other viewer").Body.String(); !strings.Contains(page, "data-again") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if len(db.within) != 1 || db.within[0] != "other/*" {
		t.Errorf("the jobs were counted within %q", db.within)
	}
	if page := s.ask(http.MethodGet, "/playground", "other viewer").Body.String(); !strings.Contains(page, `name="repo" value="other/web"`) {
		t.Errorf("the playground begins with another repository: %s", page)
	}
	if code := s.ask(http.MethodGet, "/playground?job_id=1", "other viewer").Code; code != http.StatusNotFound {
		t.Errorf("another team's job in the playground is answered %d", code)
	}
}
