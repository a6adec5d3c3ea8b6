package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
	"switchyard/router/nomadsim/nomadtest"
)

// initialized runs init, and returns what it printed.
func initialized(t *testing.T, wantCode int, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if code := run(t.Context(), append([]string{"init"}, args...), strings.NewReader(""), &out, &out); code != wantCode {
		t.Fatalf("init %q: exit code %d, want %d\n%s", args, code, wantCode, out.String())
	}
	return out.String()
}

// files returns what a directory has.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	list, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		found[e.Name()] = string(b)
	}
	return found
}

var someAnswers = []string{"--owner", "acme", "--public-url", "http://10.0.0.5:8080", "--webhook-url", "https://ci.example.com"}

// The rules that init writes are good, whatever the answers are.
func TestInitWritesRulesThatPassTheirTests(t *testing.T) {
	for _, systems := range []string{"linux", "macos", "windows", "windows,linux,macos"} {
		t.Run(systems, func(t *testing.T) {
			dir := t.TempDir()
			initialized(t, 0, append(someAnswers, "--dir", dir, "--systems", systems)...)
			file := filepath.Join(dir, "rules.yaml")
			var out bytes.Buffer
			for _, args := range [][]string{{"check", "--strict", file}, {"test", "--coverage", file}} {
				if code := run(t.Context(), args, nil, &out, &out); code != 0 {
					t.Errorf("%q: exit code %d\n%s", args, code, out.String())
				}
			}
			if said := out.String(); !strings.Contains(said, "no faults") || strings.Contains(said, "no test reaches the rule") {
				t.Errorf("%s\n%s", said, files(t, dir)["rules.yaml"])
			}
		})
	}
}

func TestInitNeverOverwritesAFile(t *testing.T) {
	dir := t.TempDir()
	args := append(someAnswers, "--dir", dir)
	initialized(t, 0, args...)
	want := files(t, dir)
	if got := slices.Sorted(maps.Keys(want)); !slices.Equal(got, []string{"access.yaml", "app-manifest.json", "console.token", "policy.hcl", "rules.yaml", "switchyard.nomad.hcl"}) {
		t.Errorf("init wrote %q", got)
	}
	own := strings.Replace(want["rules.yaml"], "time_limit: 6h", "time_limit: 1h", 1)
	must(t, os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(own), 0o600))
	must(t, os.Remove(filepath.Join(dir, "policy.hcl")))
	must(t, os.Remove(filepath.Join(dir, "access.yaml"))) // of the same token again
	want["rules.yaml"] = own
	said := initialized(t, 0, append(args, "--systems", "macos", "--owner", "beta")...)
	if d := cmp.Diff(want, files(t, dir)); d != "" {
		t.Errorf("the files (-want +got):\n%s", d)
	}
	for _, line := range []string{"rules.yaml stays as it is", "policy.hcl is written", "access.yaml is written", "console.token stays as it is"} {
		if !strings.Contains(said, line) {
			t.Errorf("init does not say %q:\n%s", line, said)
		}
	}
	if !strings.Contains(said, "switchyard init --owner beta --systems macos --public-url http://10.0.0.5:8080 --webhook-url https://ci.example.com/webhooks/github --create-app") {
		t.Errorf("init does not say how to go on:\n%s", said)
	}
}

// Two at once, or one that is killed and one after it, leave each file whole.
func TestInitsAtOnceWriteEachFileOnce(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			f := initFlags{dir: dir}
			_ = f.create("x", strings.Repeat(fmt.Sprint(i), 1000), 0o600)
		})
	}
	all.Wait()
	got := files(t, dir)
	if text := got["x"]; len(got) != 1 || len(text) != 1000 || strings.Trim(text, text[:1]) != "" {
		t.Errorf("the directory has %d files, and one has %d bytes", len(got), len(text))
	}
}

func TestInitSaysWhatIsMissingOrWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"nothing is given":       {nil, "without a terminal to ask on, also give --owner, --public-url, --webhook-url; see switchyard init --help"},
		"one is missing":         {[]string{"--owner", "acme", "--webhook-url", "poll"}, "also give --public-url;"},
		"no such system":         {append(someAnswers, "--systems", "linux,beos"), "--systems: want any of linux, macos and windows"},
		"no owner":               {append(someAnswers, "--owner", "acme/web"), "--owner: want the name"},
		"GitHub in clear":        {append(someAnswers, "--github", "http://github.example.com"), "--github: GitHub's base URL"},
		"a path to the server":   {append(someAnswers, "--public-url", "http://10.0.0.5/x"), "--public-url: want scheme, host and port alone"},
		"not a URL":              {append(someAnswers, "--webhook-url", "ci.example.com"), "--webhook-url: \"ci.example.com\" is not a URL such as https://ci.example.com, nor is it poll"},
		"a URL that runs":        {append(someAnswers, "--webhook-url", "https://ci.example.com/$(id)"), "--webhook-url: "},
		"a URL that is HCL":      {append(someAnswers, "--public-url", `http://a"${x}`), "--public-url: "},
		"an unexpected argument": {append(someAnswers, "here"), "takes no arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			if said := initialized(t, 2, append(slices.Clone(tt.args), "--dir", dir)...); !strings.Contains(said, tt.want) {
				t.Errorf("init says %q, want %q", said, tt.want)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("init wrote files")
			}
		})
	}
}

func TestInitAsksUntilItHasAnAnswer(t *testing.T) {
	var f initFlags
	var out bytes.Buffer
	answers := "\nacme/web\n@mona\nbeos\nmacOS linux\nnowhere\nhttp://10.0.0.5:8080/\n\nmaybe\nn\n"
	must(t, f.ask(bufio.NewReader(strings.NewReader(answers)), &out, nil))
	want := initFlags{github: "https://github.com", owner: "@mona", systems: "linux,macos", publicURL: "http://10.0.0.5:8080", webhook: "poll"}
	if f != want {
		t.Errorf("the answers are %+v, want %+v", f, want)
	}
	if n := strings.Count(out.String(), "? "); n < 6 {
		t.Errorf("it asked %d times:\n%s", n, out.String())
	}
	if err := new(initFlags).ask(bufio.NewReader(strings.NewReader("")), io.Discard, nil); err == nil {
		t.Error("an end of the answers is no error")
	}
}

// What init writes for Nomad is what the pages and the jobspec say.
func TestInitsJobIsThatOfTheJobspecs(t *testing.T) {
	page, err := os.ReadFile("../../jobspecs/install.md")
	must(t, err)
	_, block, _ := strings.Cut(string(page), "```hcl\n")
	block, _, _ = strings.Cut(block, "```")
	if !strings.HasPrefix(policy, block) {
		t.Errorf("policy.hcl begins otherwise than in jobspecs/install.md:\n%s", policy)
	}
	for _, part := range []string{servicePort, serviceVolume, servicePublicURL} {
		if n := strings.Count(jobspecs.Service, part); n != 1 {
			t.Errorf("the jobspec has %q %d times", part, n)
		}
	}
	f := initFlags{github: "https://github.example.com", owner: "acme", systems: "linux", publicURL: "http://10.0.0.5:9090", webhook: "poll"}
	job := f.service()
	for _, want := range []string{
		"  default     = 9090\n", `  default     = ""` + "\n", `SWITCHYARD_PUBLIC_URL          = "http://10.0.0.5:9090"` + "\n",
		`SWITCHYARD_GITHUB_URL          = "https://github.example.com/api/v3/"` + "\n", `SWITCHYARD_GITHUB_INTAKE       = "poll"` + "\n",
	} {
		if !strings.Contains(job, want) {
			t.Errorf("the job lacks %q:\n%s", want, job)
		}
	}
	addr := nomadtest.Agent(t)
	if addr == "" {
		return
	}
	nomad, err := api.NewClient(&api.Config{Address: addr})
	must(t, err)
	for _, variables := range []string{"", "image = \"ghcr.io/acme/switchyard:1\"\n", "binary = \"/usr/bin/switchyard\"\ndriver = \"raw_exec\"\n", "volume = \"switchyard\"\n"} {
		parsed, err := nomad.Jobs().ParseHCLOpts(&api.JobsParseRequest{JobHCL: job, Canonicalize: true, Variables: variables})
		must(t, err)
		if verdict, _, err := nomad.Jobs().Validate(parsed, nil); err != nil || verdict.Error != "" {
			t.Errorf("with %q Nomad says %v, %v", variables, verdict, err)
		}
	}
}

// A browser is one that opens the page of init.
type browser struct {
	t    *testing.T
	page string // the address that init printed
}

var pageAddress = regexp.MustCompile(`open (http://127\.0\.0\.1:\d+/\S+/) in a browser`)

// creates runs init until it prints the address of its page; wait returns what it printed, and its exit code.
func creates(t *testing.T, args ...string) (b *browser, wait func() (string, int)) {
	t.Helper()
	r, w := io.Pipe()
	ended := make(chan int, 1)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		ended <- run(ctx, append([]string{"init", "--create-app"}, args...), strings.NewReader(""), w, w)
		_ = w.Close()
	}()
	var said strings.Builder
	lines := bufio.NewReader(io.TeeReader(r, &said))
	for {
		line, err := lines.ReadString('\n')
		if m := pageAddress.FindStringSubmatch(line); m != nil {
			return &browser{t, m[1]}, func() (string, int) {
				_, _ = io.Copy(io.Discard, lines)
				return said.String(), <-ended
			}
		}
		if err != nil {
			t.Fatalf("init ended with %d:\n%s", <-ended, said.String())
		}
	}
}

var (
	formAction = regexp.MustCompile(`<form method="post" action="([^"]+)">`)
	formText   = regexp.MustCompile(`name="manifest" value="([^"]+)"`)
)

// press opens the page and presses its button: on GitHub, and back.
func (b *browser) press() (status int, page string) {
	b.t.Helper()
	_, page = b.get(b.page, "")
	action, text := formAction.FindStringSubmatch(page), formText.FindStringSubmatch(page)
	if action == nil || text == nil || strings.Count(page, "<button>") != 1 {
		b.t.Fatalf("the page is\n%s", page)
	}
	resp, err := http.PostForm(html.UnescapeString(action[1]), url.Values{"manifest": {html.UnescapeString(text[1])}})
	must(b.t, err)
	defer resp.Body.Close()
	said, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(said)
}

func (b *browser) get(address, host string) (status int, page string) {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodGet, address, nil)
	must(b.t, err)
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	must(b.t, err)
	defer resp.Body.Close()
	said, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(said)
}

// A GitHub on which Apps can be made, with the check of its API by GitHub's description.
func appHub(t *testing.T) (*githubsim.Server, string) {
	t.Helper()
	key, err := appKey()
	must(t, err)
	hub := githubsim.New(githubsim.Config{App: &githubsim.App{ID: 17, Key: &key.PublicKey, Private: key}})
	t.Cleanup(hub.Close)
	hub.AddRepo(githubsim.Repo{Owner: "acme", Name: "web", Private: true})
	checked := githubtest.Contract(t, hub)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/v3/") {
			checked.ServeHTTP(w, r)
			return
		}
		hub.ServeHTTP(w, r) // its pages
	}))
	t.Cleanup(server.Close)
	return hub, server.URL
}

func TestInitMakesTheApp(t *testing.T) {
	for name, owner := range map[string]string{"of an organization": "acme", "of a user": "@mona"} {
		t.Run(name, func(t *testing.T) {
			hub, site := appHub(t)
			dir := filepath.Join(t.TempDir(), "a b")
			b, wait := creates(t, append(slices.Clone(someAnswers), "--owner", owner, "--github", site, "--dir", dir)...)
			if status, page := b.press(); status != http.StatusOK || !strings.Contains(page, "https://github.com/apps/switchyard/installations/new") {
				t.Fatalf("the last page is %d\n%s", status, page)
			}
			said, code := wait()
			if code != 0 || !strings.Contains(said, "https://github.com/apps/switchyard/installations/new") || !strings.Contains(said, "nomad job run -var binary=") {
				t.Errorf("exit code %d\n%s", code, said)
			}
			got := files(t, dir)
			for _, secret := range []string{"app.pem", "webhook.secret", "app.id", "switchyard.env", "access.yaml", "console.token"} {
				if info, err := os.Stat(filepath.Join(dir, secret)); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
					t.Errorf("%s is %v, %v", secret, info, err)
				}
			}
			if got["app.json"] != "" || got["app.id"] != "17" || !strings.Contains(got["app.pem"], "PRIVATE KEY") || len(got["webhook.secret"]) < 20 || strings.Contains(said, got["webhook.secret"]) {
				t.Errorf("the files are %q", got)
			}
			// It has what the rules need, and no more.
			hub.SetApp(func(a *githubsim.AppSettings) {
				if d := cmp.Diff(map[string]string{"actions": "read", "administration": "write", "metadata": "read"}, a.Permissions); d != "" {
					t.Errorf("permissions (-want +got):\n%s", d)
				}
				if !slices.Equal(a.Events, []string{"workflow_job"}) || a.HookURL != "https://ci.example.com/webhooks/github" || a.Secret != got["webhook.secret"] {
					t.Errorf("the App's page has %+v", a)
				}
			})
			// And again: nothing is asked, made or changed.
			again := initialized(t, 0, append(slices.Clone(someAnswers), "--owner", owner, "--github", site, "--dir", dir, "--create-app")...)
			if d := cmp.Diff(got, files(t, dir)); d != "" || !strings.Contains(again, "the App's files are there already") {
				t.Errorf("%s\n%s", again, d)
			}
		})
	}
}

// A page that did not come from GitHub by this page's button makes no App.
func TestInitTakesNobodyElsesApp(t *testing.T) {
	hub, site := appHub(t)
	dir := t.TempDir()
	b, wait := creates(t, append(slices.Clone(someAnswers), "--github", site, "--dir", dir)...)
	made := b.page + "made?code=abc"
	root := b.page[:strings.Index(b.page[len("http://"):], "/")+len("http://")+1]
	for name, tt := range map[string]struct {
		address, host string
		want          int
	}{
		"no state":                 {made, "", http.StatusBadRequest},
		"another state":            {made + "&state=x", "", http.StatusBadRequest},
		"without the page's path":  {root, "", http.StatusNotFound},
		"a name that leads here":   {b.page, "evil.example", http.StatusMisdirectedRequest},
		"another name of the host": {strings.Replace(b.page, "127.0.0.1", "localhost", 1), "", http.StatusMisdirectedRequest},
	} {
		if status, page := b.get(tt.address, tt.host); status != tt.want || strings.Contains(page, "stored") {
			t.Errorf("%s: %d, want %d\n%s", name, status, tt.want, page)
		}
	}
	if got := files(t, dir); got["app.pem"] != "" {
		t.Error("an App is stored")
	}
	// A wrong code is said, and the button still works.
	_, page := b.get(b.page, "")
	state, err := url.Parse(html.UnescapeString(formAction.FindStringSubmatch(page)[1]))
	must(t, err)
	if status, page := b.get(made+"&state="+state.Query().Get("state"), ""); status != http.StatusBadGateway || !strings.Contains(page, "make it once more") || !strings.Contains(page, "<button>") {
		t.Errorf("a wrong code: %d\n%s", status, page)
	}
	if status, _ := b.press(); status != http.StatusOK {
		t.Errorf("the button afterwards: %d", status)
	}
	if said, code := wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, said)
	}
	hub.SetApp(func(a *githubsim.AppSettings) {
		if a.Secret != files(t, dir)["webhook.secret"] {
			t.Error("the webhook's secret is another")
		}
	})
}

// GitHub gives the key once: an init that was killed after it has it all.
func TestInitGoesOnWhereItWasKilled(t *testing.T) {
	dir := t.TempDir()
	args := append(slices.Clone(someAnswers), "--dir", dir)
	stored := `{"id": 7, "page": "https://github.com/apps/x", "key": "KEY", "webhook_secret": "SECRET"}`
	for _, before := range [][]string{{}, {"app.page", "app.id"}, {"app.page", "app.id", "app.pem"}, {"app.page", "app.id", "app.pem", "webhook.secret"}} {
		initialized(t, 0, args...)
		for _, name := range []string{"app.page", "app.id", "app.pem", "webhook.secret", "switchyard.env"} {
			if !slices.Contains(before, name) {
				_ = os.Remove(filepath.Join(dir, name))
			}
		}
		must(t, os.WriteFile(filepath.Join(dir, "app.json"), []byte(stored), 0o600))
		initialized(t, 0, args...)
		got := files(t, dir)
		if got["app.id"] != "7" || got["app.pem"] != "KEY" || got["webhook.secret"] != "SECRET" || !strings.Contains(got["switchyard.env"], "SWITCHYARD_GITHUB_APP_ID=7\n") || got["app.json"] != "" {
			t.Errorf("after %q the files are %q", before, got)
		}
	}
	must(t, os.Remove(filepath.Join(dir, "app.pem")))
	must(t, os.Remove(filepath.Join(dir, "switchyard.env")))
	if said := initialized(t, 2, append(args, "--create-app")...); !strings.Contains(said, "move it away to make a new App") {
		t.Errorf("init says %s", said)
	}
}

// The settings of switchyard.env are what serve takes.
func TestTheSettingsOfInitAreThoseOfServe(t *testing.T) {
	f := initFlags{github: "https://github.example.com", owner: "acme", systems: "linux", publicURL: "http://10.0.0.5:9090", webhook: "https://ci.example.com/webhooks/github", dir: "it's here"}
	flags := serveCommand().Flags()
	for line := range strings.Lines(f.env("17")) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if strings.HasPrefix(line, "#") {
			continue
		}
		flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
		if err := flags.Set(flag, value); err != nil || !ok || strings.Contains(value, "here") && !strings.HasSuffix(value, "'") {
			t.Errorf("%s%v", line, err)
		}
	}
}
