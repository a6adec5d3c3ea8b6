package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/web/auth"
	"switchyard/rules"
)

var screenshots = flag.String("screenshots", "", "directory for pictures of all pages")

// newBrowser starts a headless Chromium for a test, in which tabs are opened.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("no chromium on PATH: .ci/run installs it")
		}
		t.Skip("no chromium on PATH")
	}
	dir, err := os.MkdirTemp("", "switchyard-browser-")
	must(t, err)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.UserDataDir(dir), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WSURLReadTimeout(time.Minute),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("hide-scrollbars", true))...)
	browser, end := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		end()
		cancel()
		_ = os.RemoveAll(dir) // what it still writes is gone with the machine's temporary files
	})
	if err := chromedp.Run(browser); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return browser
}

// A tab is one of a browser. Whatever goes wrong in it fails the test: an
// error on the console, a refusal of the content policy, a request to another origin.
type tab struct {
	t      *testing.T
	ctx    context.Context
	origin string

	mu      sync.Mutex
	expects []string // parts of errors that are meant
	wrong   []string
}

func openTab(t *testing.T, browser context.Context, origin string, actions ...chromedp.Action) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	ctx, stop := context.WithTimeout(ctx, 8*time.Minute) // before the tests' own deadline, so that it is said where it hangs
	b := &tab{t: t, ctx: ctx, origin: origin}
	chromedp.ListenTarget(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			b.note("exception: %s", ev.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if ev.Type == runtime.APITypeError || ev.Type == runtime.APITypeWarning {
				b.note("console: %v", ev.Args)
			}
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.LevelError || ev.Entry.Level == log.LevelWarning {
				b.note("log: %s %s", ev.Entry.Text, ev.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			if u := ev.Request.URL; !strings.HasPrefix(u, origin+"/") && !strings.HasPrefix(u, "data:") && !strings.HasPrefix(u, "blob:") && u != "about:blank" {
				b.note("a request to another origin: %s", u)
			}
		case *page.EventJavascriptDialogOpening:
			go func() { _ = chromedp.Run(ctx, page.HandleJavaScriptDialog(true)) }()
		}
	})
	t.Cleanup(func() {
		stop()
		cancel()
		for _, w := range b.wrong {
			t.Errorf("in the browser: %s", w)
		}
	})
	b.do(append([]chromedp.Action{network.Enable(), log.Enable(), runtime.Enable(), page.Enable(), emulation.SetFocusEmulationEnabled(true)}, actions...)...)
	return b
}

func (b *tab) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	what := fmt.Sprintf(format, args...)
	for _, part := range b.expects {
		if strings.Contains(what, part) {
			return
		}
	}
	b.wrong = append(b.wrong, what)
}

// expect says that errors with this text are meant.
func (b *tab) expect(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expects = append(b.expects, part)
}

func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		var at, text string
		ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), 5*time.Second)
		defer cancel()
		_ = chromedp.Run(ctx, chromedp.Location(&at), chromedp.Evaluate(`document.body.innerText.slice(0, 1500)`, &text))
		b.t.Fatalf("at %s: %v\n%s", at, err, text)
	}
}

// there does something with an element, again if that was made anew before it was done.
func there(do chromedp.Action) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		for {
			err := do.Do(ctx)
			if err == nil || !strings.Contains(err.Error(), "Could not find node") {
				return err
			}
		}
	})
}

func (b *tab) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.origin + path))
}

// value evaluates a script.
func value[T any](b *tab, script string) (v T) {
	b.t.Helper()
	b.do(chromedp.Evaluate(script, &v))
	return v
}

// until waits for a script to be true.
func (b *tab) until(script string) {
	b.t.Helper()
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var is bool
		err := chromedp.Run(b.ctx, chromedp.Evaluate("!!("+script+")", &is)) // fails while a page is left for another
		if is {
			return
		}
		if time.Now().After(end) || b.ctx.Err() != nil {
			var at, text string
			ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), 5*time.Second)
			defer cancel()
			_ = chromedp.Run(ctx, chromedp.Location(&at), chromedp.Evaluate(`document.querySelector("main").innerText.slice(-1500)`, &text))
			b.t.Fatalf("at %s it never was that %s (%v)\n%s", at, script, err, text)
		}
	}
}

// click, press and fill are what a person does to the first element of a selector.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(there(chromedp.Click(selector, chromedp.ByQuery)))
}
func (b *tab) press(selector, keys string) {
	b.t.Helper()
	b.do(there(chromedp.SendKeys(selector, keys, chromedp.ByQuery)))
}
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.do(there(chromedp.Focus(selector, chromedp.ByQuery)), chromedp.ActionFunc(func(ctx context.Context) error {
		return chromedp.Evaluate(fmt.Sprintf(`document.querySelector(%q).select()`, selector), nil).Do(ctx)
	}), chromedp.ActionFunc(func(ctx context.Context) error { return input.InsertText(text).Do(ctx) }))
}

// consolePages are all there are, for a yard with this job.
func consolePages(job int64) []string {
	return []string{
		"/", "/jobs", fmt.Sprintf("/jobs/%d", job), "/runners", "/labels", "/playground",
		"/playground?labels=self-hosted%2Clinux%2Cgpu&repo=acme%2Fml", "/rules", "/rules/versions", "/rules/versions/1", "/fleet", "/usage?by=label", "/whatif", "/audit",
	}
}

// sound holds a page to what every page must have.
const sound = `(() => {
	const faults = [];
	const seen = (e) => e.checkVisibility ? e.checkVisibility() : true;
	if (document.querySelectorAll("h1").length !== 1) faults.push("h1: " + document.querySelectorAll("h1").length);
	for (const one of ["main", "header", "nav[aria-label]"]) if (!document.querySelector(one)) faults.push("no " + one);
	if (!document.documentElement.lang || !document.title) faults.push("no language or title");
	for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
		if (seen(e) && !(e.labels?.length || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.closest(".cm-editor"))) faults.push("no label: " + e.outerHTML.slice(0, 120));
	}
	for (const e of document.querySelectorAll("button, a[href], summary")) {
		if (seen(e) && !(e.innerText.trim() || e.getAttribute("aria-label") || e.querySelector("img[alt]:not([alt=''])"))) faults.push("no name: " + e.outerHTML.slice(0, 120));
	}
	for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) faults.push("no alt: " + e.outerHTML.slice(0, 120));
	for (const e of document.querySelectorAll("svg")) if (!e.closest("[aria-hidden=true]") && !(e.getAttribute("role") === "img" && (e.querySelector("title") || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")))) faults.push("a picture without words: " + e.outerHTML.slice(0, 120));
	for (const e of document.querySelectorAll("th")) if (!e.scope) faults.push("th without scope: " + e.outerHTML.slice(0, 120));
	let last = 1;
	for (const e of document.querySelectorAll("h1, h2, h3, h4")) { const n = Number(e.tagName[1]); if (n > last + 1) faults.push("heading skips to " + e.outerHTML.slice(0, 80)); last = n; }
	const ids = new Set();
	for (const e of document.querySelectorAll("[id]")) { if (ids.has(e.id)) faults.push("id twice: " + e.id); ids.add(e.id); }
	if (document.scrollingElement.scrollWidth > document.scrollingElement.clientWidth + 1) faults.push("wider than the window: " + document.scrollingElement.scrollWidth + " in " + document.scrollingElement.clientWidth);
	return faults;
})()`

// weight is what a page transfers, compressed, without the editor.
const weight = `(() => {
	const size = (l) => l.reduce((n, e) => n + e.encodedBodySize, 0);
	return {
		Page: size(performance.getEntriesByType("navigation")),
		Scripts: size(performance.getEntriesByType("resource").filter((e) => !e.name.includes("/editor."))),
	};
})()`

func TestTheConsoleInABrowser(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)

	t.Run("each page with data", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, yardConfig{})
		job := y.busy()
		wide, narrow := openTab(t, browser, y.console, chromedp.EmulateViewport(1280, 900), network.SetCacheDisabled(true)), openTab(t, browser, y.console, chromedp.EmulateViewport(390, 800))
		for _, path := range consolePages(job) {
			for name, b := range map[string]*tab{"wide": wide, "narrow": narrow} {
				b.open(path)
				if faults := value[[]string](b, sound); len(faults) > 0 {
					t.Errorf("%s, %s:\n%s", path, name, strings.Join(faults, "\n"))
				}
				w := value[struct{ Page, Scripts float64 }](b, weight)
				if w.Page+w.Scripts > 200_000 || w.Page == 0 {
					t.Errorf("%s: %.0f bytes and %.0f of style and script", path, w.Page, w.Scripts)
				}
			}
		}
		wide.open(fmt.Sprintf("/jobs/%d", job))
		for _, want := range []string{"pretrain", "nvidia/gpu", "no-public-repositories", "webhook"} {
			if text := value[string](wide, `document.querySelector("main").innerText`); !strings.Contains(text, want) {
				t.Errorf("the job's page has no %q:\n%s", want, text)
			}
		}
	})

	t.Run("each page when there is nothing", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, yardConfig{})
		b := openTab(t, browser, y.console)
		for _, path := range consolePages(1) {
			if strings.HasPrefix(path, "/jobs/") {
				continue
			}
			b.open(path)
			if faults := value[[]string](b, sound); len(faults) > 0 {
				t.Errorf("%s:\n%s", path, strings.Join(faults, "\n"))
			}
		}
		b.expect("404")
		b.open("/jobs/1")
		if text := value[string](b, `document.querySelector("[role=alert]").innerText`); !strings.Contains(text, "not found here") {
			t.Errorf("a job that there is not: %s", text)
		}
	})

	t.Run("each page while the database and Nomad are away", func(t *testing.T) {
		t.Parallel()
		away, leave := context.WithCancel(t.Context())
		y := newYard(t, yardConfig{front: func(nomad http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if away.Err() != nil {
					http.NotFound(w, r) // nothing that it answers is Nomad's
					return
				}
				ctx, cancel := context.WithCancel(r.Context())
				defer context.AfterFunc(away, cancel)()
				defer cancel()
				nomad.ServeHTTP(w, r.WithContext(ctx))
			})
		}})
		job := y.busy()
		leave()
		b := openTab(t, browser, y.console)
		b.open("/fleet")
		if faults := value[[]string](b, sound); len(faults) > 0 {
			t.Errorf("/fleet: %s", strings.Join(faults, "\n"))
		}
		if text := value[string](b, `document.querySelector("main").innerText`); !strings.Contains(text, "Nomad") {
			t.Errorf("/fleet without Nomad: %s", text)
		}
		must(t, y.Store.Close())
		b.expect("500")
		b.expect("503")
		for _, path := range consolePages(job) {
			b.open(path)
			if n := value[int](b, `document.querySelectorAll("h1").length`); n != 1 {
				t.Errorf("%s without the database has %d h1", path, n)
			}
		}
	})

	t.Run("a page follows what happens", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, yardConfig{})
		b := openTab(t, browser, y.console)
		b.open("/jobs")
		b.do(chromedp.Evaluate(`window.same = true`, nil))
		y.queue(githubsim.JobSpec{Name: "comes later", Labels: []string{"self-hosted", "linux"}, Duration: time.Hour}, router.Running)
		b.until(`document.querySelector("main").innerText.includes("comes later") && document.querySelector("main").innerText.includes("running")`)
		if !value[bool](b, `window.same === true`) {
			t.Error("the page was loaded again")
		}
	})

	t.Run("the playground answers as explain does", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, yardConfig{})
		b := openTab(t, browser, y.console)
		b.open("/playground")
		b.fill(`[name=repo]`, "acme/ml")
		for _, labels := range []string{"self-hosted,linux,gpu,cpu=8", "self-hosted,linx", "self-hosted,linux,x64,arm64", "ubuntu-latest", "yard=7/linux/gpu"} {
			var out, errs bytes.Buffer
			run(t.Context(), []string{"explain", "--rules", y.rules, "--repo", "acme/ml", "--labels", labels, "--format", "json"}, nil, &out, &errs)
			var want rules.Decision
			if err := json.Unmarshal(out.Bytes(), &want); err != nil {
				t.Fatalf("explain %s: %v: %s%s", labels, err, out.String(), errs.String())
			}
			b.fill(`[name=labels]`, labels)
			b.until(fmt.Sprintf(`document.querySelector("#answer .verdict")?.innerText.replace(/\s+/g, " ").trim() === %s`, quoted(string(want.Outcome)+" "+router.Printable(want.Reason))))
			for _, step := range want.Trace {
				if text := value[string](b, `document.querySelector("#answer").innerText`); !strings.Contains(text, step.Rule) || !strings.Contains(text, router.Printable(step.Why)) {
					t.Errorf("%s: the trace misses %s: %s:\n%s", labels, step.Rule, step.Why, text)
				}
			}
			if at := value[string](b, `location.search`); !strings.Contains(at, url.QueryEscape(strings.Split(labels, ",")[0])) {
				t.Errorf("the address %s does not lead to %s", at, labels)
			}
		}
	})

	t.Run("rules: a fault at its line, apply, a conflict, and back", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, yardConfig{})
		y.busy()
		b, other := openTab(t, browser, y.console), openTab(t, browser, y.console)
		b.open("/rules")
		b.until(`document.querySelector("#editor .cm-content") !== null`)
		write := func(b *tab, text string) {
			b.t.Helper()
			// A mouse may miss what still moves, and leave the text as it was.
			b.do(there(chromedp.Focus("#editor .cm-content", chromedp.ByQuery)), ctrlA(), input.InsertText(text))
			b.until(fmt.Sprintf(`document.querySelector("textarea[name=source]").value === %q`, text))
		}
		src := string(demoRules)
		bad := strings.Replace(src, "jobspec: docker-linux", "jobspecs: docker-linux", 1)
		line := 1 + strings.Count(bad[:strings.Index(bad, "jobspecs:")], "\n")
		write(b, bad)
		b.until(fmt.Sprintf(`document.querySelector('#diagnostics .finding[data-line="%d"]')?.innerText.includes("jobspecs")`, line))
		// Its link leads to it. A mouse may miss what still moves.
		b.until(fmt.Sprintf(`(document.querySelector('#diagnostics .finding[data-line="%d"] .place')?.click(), document.querySelector("#editor .cm-lint-marker-error, #editor .cm-lintRange-error"))`, line))

		good := strings.Replace(src, "  - name: linux\n", "  - name: penguin\n", 1)
		good = strings.NewReplacer("rule: linux-release", "rule: linux-release", "rule: linux", "rule: penguin").Replace(good)
		write(b, good)
		b.until(`document.querySelector("#diagnostics")?.innerText.includes("Good")`)
		other.open("/rules")
		b.fill(`[name=note]`, "call it by its bird")
		b.click("#apply")
		b.until(`document.querySelector("[role=status]")?.innerText !== undefined && location.search.includes("applied")`)
		if got, _ := os.ReadFile(y.rules); string(got) != good {
			t.Errorf("the file is not what was applied")
		}

		// The other one began before.
		other.until(`document.querySelector("#editor .cm-content") !== null`)
		write(other, strings.Replace(src, "version: 1", "version: 1 # mine", 1))
		other.until(`document.querySelector("#diagnostics")?.innerText.includes("Good")`)
		other.expect("409")
		other.click("#apply")
		other.until(`document.querySelector("#conflict") !== null`)
		if got, _ := os.ReadFile(y.rules); string(got) != good {
			t.Errorf("the second overwrote the first")
		}
		if !value[bool](other, `[...document.querySelectorAll("textarea[name=source]")].some((e) => e.value.includes("# mine"))`) {
			t.Error("the second's text is lost")
		}

		b.open("/rules/versions")
		b.click(`a[href="/rules/versions/1"]`)
		b.until(`document.querySelector('form[action$="/put-back"] button') !== null`)
		b.click(`form[action$="/put-back"] button`)
		b.until(`location.search.includes("done=back")`)
		if got, _ := os.ReadFile(y.rules); string(got) != src {
			t.Errorf("the file is not what it was")
		}
	})

	t.Run("a viewer changes nothing", func(t *testing.T) {
		t.Parallel()
		var acc atomic.Pointer[auth.Access]
		acc.Store(&auth.Access{Tokens: []auth.Token{{Name: "vera", SHA256: sha256.Sum256([]byte("only a look")), Role: auth.Viewer}}})
		y := newYard(t, yardConfig{access: func() (*auth.Access, error) { return acc.Load(), nil }})
		job := y.busy()
		b := openTab(t, browser, y.console)
		b.open("/jobs")
		b.until(`location.pathname === "/login"`)
		b.press("#token", "only a look"+kb.Enter)
		b.until(`location.pathname === "/jobs"`)
		for _, path := range consolePages(job) {
			if path == "/audit" {
				b.expect("403")
			}
			b.open(path)
			for _, form := range value[[]string](b, `[...document.querySelectorAll("form[method=post]")].map((f) => f.getAttribute("action"))`) {
				if form != "/logout" && form != "/rules" {
					t.Errorf("%s offers a viewer %s", path, form)
				}
			}
			if value[bool](b, `document.querySelector("#apply") !== null`) {
				t.Errorf("%s offers a viewer to apply rules", path)
			}
		}
		b.expect("403")
		src, _ := os.ReadFile(y.rules)
		for _, path := range []string{
			fmt.Sprintf("/jobs/%d/retry", job), fmt.Sprintf("/jobs/%d/cancel", job), fmt.Sprintf("/runners/gha-%d-1/stop", job), "/rules/versions/1/put-back", "/rules",
			fmt.Sprintf("/api/v1/jobs/%d/cancel", job), fmt.Sprintf("/api/v1/runners/gha-%d-1/stop", job), "/api/v1/sync",
		} {
			script := fmt.Sprintf(`fetch(%q, {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"}, body: "do=apply&days=7&base=x&name=rules.yaml&source=version:+1"}).then((r) => r.status)`, path)
			var status int
			b.do(chromedp.Evaluate(script, &status, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
			if status != 403 {
				t.Errorf("POST %s by a viewer = %d, want 403", path, status)
			}
		}
		if now, _ := os.ReadFile(y.rules); !bytes.Equal(src, now) {
			t.Error("a viewer changed the rules")
		}
		if j, err := y.Store.Job(t.Context(), job); err != nil || j.State != router.Dispatched {
			t.Errorf("the job is %v, %v", j.State, err)
		}
		b.click(`form[action="/logout"] button`)
		b.until(`location.pathname === "/login"`)

		// A page that is open when its session ends does not go on as if it were fresh.
		b.open("/login?next=/jobs")
		b.press("#token", "only a look"+kb.Enter)
		b.until(`location.pathname === "/jobs"`)
		b.expect("401") // of its stream, if that has to begin again
		acc.Store(&auth.Access{})
		y.queue(githubsim.JobSpec{Name: "comes later", Labels: []string{"ubuntu-latest"}}, router.Ignored)
		b.until(`location.pathname === "/login"`)
	})

	t.Run("by keyboard alone", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, yardConfig{})
		y.busy()
		b := openTab(t, browser, y.console)
		b.open("/")
		focused := func() string {
			return value[string](b, `(() => { const e = document.activeElement; return e === document.body ? "" : (e.getAttribute("href") || e.id || e.name || e.tagName); })()`)
		}
		b.do(chromedp.KeyEvent(kb.Tab))
		if got := focused(); got != "#main" {
			t.Errorf("the first stop is %q, want the way past the navigation", got)
		}
		var stops []string
		for range 12 {
			b.do(chromedp.KeyEvent(kb.Tab))
			stops = append(stops, focused())
		}
		for _, want := range []string{"/", "/jobs", "/labels", "/playground", "/rules", "/fleet"} {
			if !slices.Contains(stops, want) {
				t.Errorf("Tab does not reach %s: %q", want, stops)
			}
		}
		b.do(chromedp.Focus(`nav a[href="/jobs"]`, chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
		b.until(`location.pathname === "/jobs"`)
		b.open("/rules")
		b.until(`document.querySelector("#editor .cm-content") !== null`)
		b.do(chromedp.Focus("#editor .cm-content", chromedp.ByQuery), chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent(kb.Tab))
		b.until(`!document.activeElement.closest(".cm-editor")`)
	})

	t.Run("without scripts", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, yardConfig{})
		job := y.busy()
		b := openTab(t, browser, y.console, emulation.SetScriptExecutionDisabled(true))
		text := func(selector string) (s string) {
			t.Helper()
			b.do(chromedp.Text(selector, &s, chromedp.ByQuery))
			return s
		}
		for _, path := range consolePages(job) {
			b.open(path)
			if text("h1") == "" {
				t.Errorf("%s has no h1", path)
			}
		}
		b.open("/playground")
		b.press(`[name=labels]`, "self-hosted, linux"+kb.Enter)
		b.do(chromedp.WaitVisible(".verdict", chromedp.ByQuery))
		if got := text(".verdict"); !strings.Contains(got, "routed") {
			t.Errorf("the playground says %s", got)
		}
		b.open("/rules")
		b.do(chromedp.Focus(`textarea[name=source]`, chromedp.ByQuery), ctrlA("selectAll"), input.InsertText("version: 1\nrules: 7\n"))
		b.click("#check")
		b.do(chromedp.WaitVisible(".finding", chromedp.ByQuery))
		if got := text("#diagnostics"); !strings.Contains(got, ":2:") {
			t.Errorf("the fault is said as %s", got)
		}
	})

	t.Run("a page says that it is old while the server does not answer", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, yardConfig{})
		to, err := url.Parse(y.console)
		must(t, err)
		var away atomic.Bool
		pass := httputil.NewSingleHostReverseProxy(to)
		pass.FlushInterval, pass.ErrorLog = -1, stdlog.New(io.Discard, "", 0)
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if away.Load() {
				panic(http.ErrAbortHandler)
			}
			pass.ServeHTTP(w, r)
		}))
		front.Config.ErrorLog = pass.ErrorLog
		defer func() { // which waits for the stream
			away.Store(true)
			front.CloseClientConnections()
			front.Close()
		}()
		b := openTab(t, browser, front.URL)
		b.expect("net::")
		b.open("/jobs")
		if !value[bool](b, `document.getElementById("stale").hidden`) {
			t.Error("what was just loaded is said to be old")
		}
		away.Store(true)
		front.CloseClientConnections()
		b.until(`!document.getElementById("stale").hidden && /^The server does not answer: what is shown is \d+ s old\.$/.test(document.getElementById("stale").innerText)`)
		away.Store(false)
		b.until(`document.getElementById("stale").hidden`)
	})

	t.Run("pictures", func(t *testing.T) {
		if *screenshots == "" {
			t.Skip("-screenshots DIR takes them")
		}
		y := newYard(t, yardConfig{})
		job := y.busy()
		y.crowd()
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 390} {
				b := openTab(t, browser, y.console, chromedp.EmulateViewport(width, 900),
					emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
				for _, path := range consolePages(job) {
					var png []byte
					b.open(path)
					b.do(chromedp.Sleep(300*time.Millisecond), chromedp.FullScreenshot(&png, 100))
					name := strings.Trim(strings.NewReplacer("/", "_", "?", "_", "%", "", "&", "_", "=", "").Replace(path), "_")
					must(t, os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%s-%d-%s.png", cmp.Or(name, "now"), width, scheme)), png, 0o600))
				}
			}
		}
	})
}

// crowd adds many jobs, with long names.
func (y *yard) crowd() {
	for i := range 60 {
		name := fmt.Sprintf("matrix (ubuntu-%d, go1.26, race) / integration-tests-against-the-real-cluster-with-a-name-that-has-no-end-%d", i, i)
		y.GitHub.Queue(y.T.Context(), githubsim.JobSpec{
			Owner: "acme-platform-engineering", Repo: "a-repository-whose-name-is-as-long-as-github-lets-it-be-which-is-a-hundred-characters-all-in-all", Private: true,
			Name: name, Workflow: "A workflow with a long name, too", Labels: []string{"self-hosted", "linux", "large", fmt.Sprintf("run-%d", 900000000+i), "zone=tokyo-a"}, Duration: time.Hour,
		})
	}
	y.until(func() error {
		if n := len(y.GitHub.Jobs()); n < 60 {
			return fmt.Errorf("%d jobs", n)
		}
		counts, err := y.Store.Counts(y.T.Context())
		if err == nil && counts[router.Queued] > 0 {
			err = fmt.Errorf("%d jobs are not decided yet", counts[router.Queued])
		}
		return err
	})
}

func quoted(s string) string {
	b, err := json.Marshal(strings.Join(strings.Fields(s), " "))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// ctrlA is Ctrl+A, with what it means to a field of the browser's own.
func ctrlA(commands ...string) chromedp.Action {
	key := func(k input.KeyType) *input.DispatchKeyEventParams {
		return input.DispatchKeyEvent(k).WithModifiers(input.ModifierCtrl).WithKey("a").WithCode("KeyA").WithWindowsVirtualKeyCode('A')
	}
	return chromedp.Tasks{key(input.KeyRawDown).WithCommands(commands), key(input.KeyUp)}
}
