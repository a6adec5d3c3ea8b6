package server_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim"
	"switchyard/router/routertest"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
	"switchyard/router/web"
	webapi "switchyard/router/web/api"
	"switchyard/rules"
)

const (
	incidentRules = `
version: 1
labels:
  self-hosted: {}
  linux: {}
  "cores=*": { param: { name: cores, type: int, min: 1, max: 64 }, resources: { cores: '${{ param.cores }}' } }
rules:
  - { name: linux, if: has("linux"), jobspec: docker-linux, runner: { scope: repository } }
`
	jobEvery = 5 * time.Second // between two jobs of the shop where the incidents happen
	noticed  = time.Minute     // in which an incident must be named
	over     = 2 * time.Minute // in which all must be quiet after the mend
)

// A shop is a world with a job every few seconds, and what its incidents need.
type shop struct {
	*routertest.World
	db      *full
	log     lines
	admin   atomic.Value // string: where the router that runs now shows its metrics
	labels  atomic.Value // []string: of the jobs that come
	task    atomic.Value // string: what runners do: "", idle or die
	scraper *scraper
	hangs   atomic.Bool // Nomad does
	refused *router.RefusedRules
	denied  atomic.Bool // Nomad's policy has lost submit-job
}

// An incident goes wrong at begin, until it is mended at end.
type incident struct {
	name       string
	begin, end func(*testing.T, *shop)
	cause      router.Cause
	check      string // of /readyz, that warns; "": none, as no operator has to act
	alert      string
}

func (s *shop) fail(status int, path string) {
	s.GitHub.SetFaults(githubsim.Faults{ErrorRate: 1, Status: status, Path: path})
}

func (s *shop) reload(t *testing.T, text string) {
	s.Rules, s.refused = routertest.Parse(t, text), nil
	s.App.Reload(s.Rules, router.RulesVersion{Origin: "file changed", Changes: []string{"rules.yaml: line 9"}})
}

func runs(task string) func(*testing.T, *shop) {
	return func(_ *testing.T, s *shop) { s.task.Store(task) }
}

func asks(labels ...string) func(*testing.T, *shop) {
	return func(_ *testing.T, s *shop) { s.labels.Store(append([]string{"self-hosted"}, labels...)) }
}

// one queues a job that nothing will serve, and cancels it at the end.
func one(labels ...string) (begin, end func(*testing.T, *shop)) {
	var id int64
	return func(_ *testing.T, s *shop) { id = s.Queue(append([]string{"self-hosted"}, labels...)...) },
		func(t *testing.T, s *shop) { must(t, s.GitHub.Cancel(id)) }
}

// The fifteen incidents that were played to an engineer. One that keeps others from being
// seen comes after them.
func incidents() []incident {
	typoBegins, typoEnds := one("linux", "gpus")
	hugeBegins, hugeEnds := one("linux", "cores=64")
	newBegins, _ := one("linux", "arm64")
	limited := strings.Replace(incidentRules, "jobspec: docker-linux", "jobspec: docker-linux, limit: { running: 1 }", 1)
	return []incident{
		{"a label is misspelled", typoBegins, typoEnds, router.CauseUnroutable, "", "SwitchyardJobsUnroutable"},
		{"a team asks for 64 cores of 2", hugeBegins, hugeEnds, router.CauseNoNodeFits, "jobs", "SwitchyardNoNodeFits"},
		{"a limit of 1 by an edit, and a flood", func(t *testing.T, s *shop) {
			s.reload(t, limited)
			for range 10 {
				s.GitHub.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "flood", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: 20 * time.Second})
			}
		}, func(t *testing.T, s *shop) { s.reload(t, incidentRules) }, router.CauseLimit, "", "SwitchyardLimitReached"},
		{"the rules are broken by an edit, and a new label is in use", func(t *testing.T, s *shop) {
			s.refused = &router.RefusedRules{Reason: "1 fault", Diagnostics: rules.Diagnostics{{File: "rules.yaml", Line: 9, Column: 3, Message: "unknown key"}}}
			s.App.RefuseRules(*s.refused)
			newBegins(t, s)
		}, func(t *testing.T, s *shop) {
			s.App.KeepRules()
			s.reload(t, strings.Replace(incidentRules, "  linux: {}", "  linux: {}\n  arm64: {}", 1))
		}, router.CauseRules, "rules", "SwitchyardRulesRefused"},
		{"online runners get no job", runs("idle"), runs(""), router.CauseOnline, "github", "SwitchyardRunnersIdle"},
		{"a jobspec has a wrong command", runs("die"), runs(""), router.CauseDied, "jobs", "SwitchyardRunnersDie"},
		{"GitHub refuses to register", func(_ *testing.T, s *shop) { s.fail(http.StatusForbidden, "generate-jitconfig") },
			func(_ *testing.T, s *shop) { s.GitHub.SetFaults(githubsim.Faults{}) }, router.CauseGitHubDenies, "github", "SwitchyardGitHubRefuses"},
		{"the public URL is wrong", func(_ *testing.T, s *shop) { s.restart("http://127.0.0.1:1") },
			func(_ *testing.T, s *shop) { s.restart("") }, router.CauseRunner, "jobs", "SwitchyardRunnersEndEarly"},
		{"the only node is ineligible", func(t *testing.T, s *shop) { must(t, s.Nomad.SetEligible("node-1", false)) },
			func(t *testing.T, s *shop) { must(t, s.Nomad.SetEligible("node-1", true)) }, router.CauseOutOfService, "jobs", "SwitchyardNodesOutOfService"},
		{"Nomad's policy has lost submit-job", func(_ *testing.T, s *shop) { s.denied.Store(true) },
			func(_ *testing.T, s *shop) { s.denied.Store(false) }, router.CauseNomadDenies, "nomad", "SwitchyardNomadRefuses"},
		{"Nomad hangs", func(_ *testing.T, s *shop) { s.hangs.Store(true); s.Nomad.SetFault(nomadsim.Silent, 0) },
			func(_ *testing.T, s *shop) { s.hangs.Store(false); s.Nomad.SetFault(nomadsim.Healthy, 0) }, router.CauseSilent, "nomad", "SwitchyardNomadFails"},
		{"GitHub answers 503", func(_ *testing.T, s *shop) { s.fail(http.StatusServiceUnavailable, "") },
			func(_ *testing.T, s *shop) { s.GitHub.SetFaults(githubsim.Faults{}) }, router.CauseGitHubCalls, "github", "SwitchyardGitHubFails"},
		{"the webhook's secret differs", func(_ *testing.T, s *shop) {
			s.Alter(func(h http.Header) { h.Set("X-Hub-Signature-256", "sha256="+strings.Repeat("0", 64)) })
		}, func(_ *testing.T, s *shop) { s.Alter(nil) }, router.CauseUnsigned, "deliveries", "SwitchyardDeliveriesUnsigned"},
		{"no deliveries arrive", func(_ *testing.T, s *shop) { s.Deliveries(false) },
			func(_ *testing.T, s *shop) { s.Deliveries(true) }, router.CauseNoDelivery, "deliveries", "SwitchyardNoDelivery"},
		{"the disk of the database is full", func(_ *testing.T, s *shop) { s.db.disk.Store(true) },
			func(_ *testing.T, s *shop) { s.db.disk.Store(false) }, router.CauseStore, "store", "SwitchyardDatabaseFails"},
	}
}

// history is a file with the jobs of eight days, in bubbles that all begin at the same time.
var history struct {
	sync.Mutex
	file []byte // nil: not made yet
}

// openHistory opens a database with the same business as a shop's on the days before.
func openHistory(t *testing.T) *store.Store {
	t.Helper()
	path := storetest.Name(t)
	history.Lock()
	defer history.Unlock()
	if history.file != nil && !store.IsPostgres(path) {
		must(t, os.WriteFile(path, history.file, 0o600))
	}
	st := storetest.Open(t, path)
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	if history.file != nil && !store.IsPostgres(path) {
		return st
	}
	var jobs sync.WaitGroup // at once, so that they share commits
	for i := range 800 {
		jobs.Go(func() {
			d := delivery(int64(1_000_100+i), "completed", "self-hosted", "linux")
			d.ReceivedAt = time.Now().AddDate(0, 0, -1-i/100).Add(time.Duration(i%100) * jobEvery / 4)
			if _, err := st.Receive(t.Context(), d); err != nil {
				t.Error(err)
			}
		})
	}
	jobs.Wait()
	if !store.IsPostgres(path) {
		whole := filepath.Join(t.TempDir(), "history.db")
		must(t, store.Backup(t.Context(), path, whole))
		var err error
		history.file, err = os.ReadFile(whole)
		must(t, err)
	}
	return st
}

// openShop starts a shop whose jobs all run, with the same business on the days before.
func openShop(t *testing.T) *shop {
	s := &shop{db: &full{Store: openHistory(t)}}
	asks("linux")(t, s)
	s.task.Store("")
	s.World = routertest.New(t, routertest.Config{
		Rules: incidentRules, Network: &network, Store: s.db, Hub: githubsim.Config{FirstID: 1000},
		Logger:  slog.New(slog.NewJSONHandler(io.MultiWriter(t.Output(), &s.log), nil)),
		Cluster: nomadsim.Config{Nodes: []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "node-1", Kernel: "linux", Arch: "amd64", Cores: 32, MemoryMB: 256 << 10})}},
		Front: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if s.denied.Load() && !s.hangs.Load() && r.Method == http.MethodPut && r.URL.Path == "/v1/jobs" {
					http.Error(w, "Permission denied", http.StatusForbidden)
					return
				}
				next.ServeHTTP(w, r)
			})
		},
	})
	t.Cleanup(func() {
		if s.scraper != nil {
			s.scraper.stop()
		}
	})
	s.Run = func(ctx context.Context, task nomadsim.Task) int {
		for {
			switch s.task.Load() {
			case "die":
				return 127
			case "idle":
				select {
				case <-ctx.Done():
					return 1
				case <-time.After(time.Second):
				}
			default:
				return s.GitHub.RunTask(ctx, task.Artifacts["secrets/runner.jit"])
			}
		}
	}
	s.open("")
	closing := make(chan struct{})
	closed := make(chan struct{})
	go func() { // the business
		defer close(closed)
		for {
			s.Queue(s.labels.Load().([]string)...)
			select {
			case <-closing:
				return
			case <-time.After(jobEvery):
			}
		}
	}()
	t.Cleanup(func() { close(closing); <-closed })
	time.Sleep(30 * time.Second)
	return s
}

func (s *shop) open(publicURL string) {
	s.Start(func(c *server.Config) {
		c.PublicURL, c.Tick = publicURL, time.Second
		c.API = func(a *server.App) http.Handler {
			return web.Handler(web.Config{App: a, Database: s.db.Store.(webapi.Database)})
		}
	})
	s.admin.Store(s.App.AdminAddr())
}

func (s *shop) restart(publicURL string) {
	s.Stop()
	s.open(publicURL)
	if s.refused != nil {
		s.App.RefuseRules(*s.refused)
	}
}

// status returns what is wrong, with the check of each cause.
func (s *shop) status(t *testing.T) []router.Trouble {
	t.Helper()
	return s.App.Status(nil).Troubles
}

func (s *shop) page(t *testing.T, path string) string {
	t.Helper()
	resp, err := httpClient.Get("http://" + s.App.AdminAddr() + path)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return string(b)
}

// has reports whether a cause is named, or that of the jobs which it keeps waiting.
func has(list []router.Trouble, cause router.Cause) bool {
	return slices.ContainsFunc(list, func(t router.Trouble) bool {
		return t.Cause == cause || cause == router.CauseGitHubDenies && t.Cause == router.CauseGitHubRefused || cause == router.CauseNomadDenies && t.Cause == router.CauseRefused
	})
}

func shown(list []router.Trouble) (text string) {
	for _, t := range list {
		text += fmt.Sprintf("\n%s %s: %s (%s)", t.Severity, t.Cause, t.What, t.Said)
	}
	return text
}

// Within a minute, each incident is what the status says first, and the console, a check and
// an alert with it; two minutes after its mend nothing is. However many jobs it hits, the log
// has a line of it a minute, which says what to do only where that is needed: what failed
// meanwhile is done again.
func TestEachIncidentIsNamed(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not here: the alerts are not evaluated")
	}
	dir := t.TempDir()
	t.Run("incident", func(t *testing.T) { // which ends when all of them have
		for _, in := range incidents() {
			t.Run(in.name, func(t *testing.T) {
				bubble(t, func(t *testing.T) { testIncident(t, in, filepath.Join(dir, in.name+".test.yml")) })
			})
		}
	})
	files, err := filepath.Glob(filepath.Join(dir, "*.test.yml"))
	must(t, err)
	if promtool == "" || len(files) == 0 {
		return
	}
	if out, err := exec.CommandContext(t.Context(), promtool, append([]string{"test", "rules"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// testIncident writes a file in which promtool finds the alerts of the incident.
func testIncident(t *testing.T, in incident, file string) {
	s := openShop(t)
	if list := s.status(t); len(list) > 0 {
		t.Fatalf("before, something is wrong:%s", shown(list))
	}
	watch := s.watch(t)
	began, logged := time.Now(), len(s.log.all(t))
	in.begin(t, s)
	for list := s.status(t); len(list) == 0 || list[0].Cause != in.cause; list = s.status(t) {
		if time.Since(began) > noticed {
			t.Fatalf("after a minute, the first trouble is not %s:%s", in.cause, shown(list))
		}
		time.Sleep(time.Second)
	}
	first := s.status(t)[0]
	if first.Since.Before(began.Add(-jobEvery)) || first.Fix == "" {
		t.Errorf("since %v, and begun at %v: %+v", first.Since, began, first)
	}
	ready := readyz(t, s.App, in.check, func(int, server.Readiness) bool { return true })
	if in.check != "" {
		if c := is(t, ready, in.check); c.Status == "ok" || c.Reason == "" {
			t.Errorf("the check is %+v", c)
		}
	} else if ready.Status != "ok" {
		t.Errorf("the router is %+v", ready)
	}
	if page := s.page(t, "/"); !strings.Contains(page, `<section class="trouble is-`+string(first.Severity)+`">`) {
		t.Errorf("Now does not show it: %s", page)
	}
	if page := s.page(t, "/jobs"); in.check != "" && !strings.Contains(page, `<div class="bar is-`+string(first.Severity)) {
		t.Errorf("the bar does not show it: %s", page)
	}
	// It stays the same thing, with no flicker.
	for time.Since(began) < 2*noticed {
		if list := s.status(t); !has(list, in.cause) {
			t.Fatalf("after %v it is not named any more:%s", time.Since(began), shown(list))
		}
		time.Sleep(time.Second)
	}
	s.wantFewLines(t, logged)
	fires := watch.now() - scrapeEvery // the scrape after the mend may come at the same moment
	in.end(t, s)
	time.Sleep(over)
	if list := s.status(t); len(list) > 0 {
		t.Errorf("two minutes after the mend:%s", shown(list))
	}
	quiet := watch.now()
	watch.stop()
	watch.write(t, file, map[string]any{
		`count(ALERTS{alertstate="firing", alertname="` + in.alert + `"}) > bool 0`: fires,
		`count(ALERTS{alertstate="firing"}) or vector(0)`:                           quiet,
	}, map[time.Duration]int{fires: 1, quiet: 0})
}

// Whichever two incidents come at once, both are named, the newer one beside the older.
func TestEachPairOfIncidentsIsNamed(t *testing.T) {
	t.Parallel()
	all := incidents()
	for i, older := range all {
		for j, newer := range all[i+1:] {
			if !*allPairs && (i+j)%7 != 0 {
				continue
			}
			virtual(t, older.name+"; then "+newer.name, func(t *testing.T) {
				s := openShop(t)
				older.begin(t, s)
				for began := time.Now(); !has(s.status(t), older.cause); time.Sleep(time.Second) {
					if time.Since(began) > noticed {
						t.Fatalf("the first is not named:%s", shown(s.status(t)))
					}
				}
				newer.begin(t, s)
				for began := time.Now(); !has(s.status(t), newer.cause); time.Sleep(time.Second) {
					if time.Since(began) > noticed {
						t.Fatalf("the second is not named:%s", shown(s.status(t)))
					}
				}
				time.Sleep(10 * time.Second)
				if list := s.status(t); !has(list, older.cause) || !has(list, newer.cause) {
					t.Errorf("both are not named:%s", shown(list))
				}
			})
		}
	}
}

var allPairs = flag.Bool("incidents.all", false, "try every pair of incidents")

// A scraper has what Prometheus would have scraped.
type scraper struct {
	t       *testing.T
	began   time.Time
	series  map[string][]string // by name and labels: a value every interval, _ for none
	scrapes int
	once    sync.Once
	done    chan struct{}
	ended   chan struct{}
}

const scrapeEvery = 15 * time.Second

func (s *shop) watch(t *testing.T) *scraper {
	w := &scraper{t: t, began: time.Now(), series: map[string][]string{}, done: make(chan struct{}), ended: make(chan struct{})}
	s.scraper = w
	go func() {
		defer close(w.ended)
		for {
			w.take(values(s.scrape()))
			select {
			case <-w.done:
				return
			case <-time.After(scrapeEvery):
			}
		}
	}()
	return w
}

// scrape returns the metrics; "" while the router is started again.
func (s *shop) scrape() string {
	resp, err := httpClient.Get("http://" + s.admin.Load().(string) + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// take adds a scrape. As Prometheus does, it marks a series that is gone as stale.
func (w *scraper) take(samples map[string]string) {
	for name := range samples {
		if w.series[name] == nil {
			w.series[name] = slices.Repeat([]string{"_"}, w.scrapes)
		}
	}
	w.scrapes++
	for name, list := range w.series {
		value, ok := samples[name]
		switch {
		case ok:
		case len(list) > 0 && list[len(list)-1] != "_" && list[len(list)-1] != "stale":
			value = "stale"
		default:
			value = "_"
		}
		w.series[name] = append(list, value)
	}
}

// values are the samples that alerts need.
func values(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		for _, want := range []string{"switchyard_trouble", "switchyard_rules_", "switchyard_jobs_waiting", "switchyard_github_blocked", "switchyard_refused"} {
			if strings.HasPrefix(line, want) {
				i := strings.LastIndexByte(line, ' ')
				all[line[:i]] = strings.TrimSpace(line[i:])
			}
		}
	}
	return all
}

// now returns how long it has watched.
func (w *scraper) now() time.Duration { return time.Since(w.began).Truncate(time.Second) }

func (w *scraper) stop() {
	w.once.Do(func() { close(w.done) })
	<-w.ended
}

// write writes a file by which promtool evaluates expressions, each at a time, by the alerts and
// what was scraped.
func (w *scraper) write(t *testing.T, file string, at map[string]any, want map[time.Duration]int) {
	t.Helper()
	rulesFile, err := filepath.Abs(filepath.Join(watching, "switchyard.rules.yml"))
	must(t, err)
	var input, exprs []any
	for _, name := range slices.Sorted(maps.Keys(w.series)) {
		input = append(input, map[string]string{"series": name, "values": strings.Join(w.series[name], " ")})
	}
	for expr, when := range at {
		exprs = append(exprs, map[string]any{
			"expr": expr, "eval_time": when.(time.Duration).String(), "exp_samples": []any{map[string]any{"labels": "{}", "value": want[when.(time.Duration)]}},
		})
	}
	b, err := yaml.Marshal(map[string]any{
		"rule_files": []string{rulesFile}, "evaluation_interval": scrapeEvery.String(),
		"tests": []any{map[string]any{"interval": scrapeEvery.String(), "input_series": input, "promql_expr_test": exprs}},
	})
	must(t, err)
	must(t, os.WriteFile(file, b, 0o600))
}
