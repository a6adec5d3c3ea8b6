package gh_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router/gh"
	"switchyard/router/githubsim"
	"switchyard/router/githubsim/githubtest"
	"switchyard/rules"
)

const appID = 17

var newKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func key() (*rsa.PrivateKey, error) { return newKey() }

// An appTest is a Client that is an App of a simulated GitHub, without a
// network between them, so that it can run in a bubble with a clock of its own.
type appTest struct {
	t *testing.T
	*githubsim.Server
	client *gh.Client
	api    http.Handler // of the Server, checked against GitHub's description

	mu    sync.Mutex
	calls []string
	// instead answers a request in GitHub's place unless it returns nil.
	instead func(*http.Request) (*http.Response, error)
}

// newAppTest returns an App that is installed for some owners.
func newAppTest(t *testing.T, cfg githubsim.Config, change func(*gh.Config), owners ...string) *appTest {
	private, err := key()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.App == nil {
		cfg.App = &githubsim.App{ID: appID}
	}
	cfg.App.Key = &private.PublicKey
	a := &appTest{t: t, Server: githubsim.New(cfg)}
	t.Cleanup(a.Close)
	a.api = githubtest.Contract(t, a.Server)
	for _, name := range []string{"web", "api"} {
		a.AddRepo(githubsim.Repo{Owner: "acme", Name: name})
		a.AddRepo(githubsim.Repo{Owner: "beta", Name: name})
	}
	for _, owner := range owners {
		a.Install(owner)
	}
	a.login(change)
	return a
}

// login makes the Client.
func (a *appTest) login(change func(*gh.Config)) {
	c := gh.Config{App: &gh.App{ID: appID, Key: key}, HTTPClient: &http.Client{Transport: a}}
	if change != nil {
		change(&c)
	}
	var err error
	if a.client, err = gh.New(c); err != nil {
		a.t.Fatal(err)
	}
}

// replica returns an appTest with another Client, of the same GitHub.
func (a *appTest) replica(change func(*gh.Config)) *appTest {
	other := &appTest{t: a.t, Server: a.Server, api: a.api}
	other.login(change)
	return other
}

func (a *appTest) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.calls = append(a.calls, req.Method+" "+req.URL.Path)
	instead := a.instead
	a.mu.Unlock()
	if instead != nil {
		if resp, err := instead(req); resp != nil || err != nil {
			return resp, err
		}
	}
	if req.Body == nil {
		req.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	a.api.ServeHTTP(rec, req)
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}

// count returns how many requests there were with all of these words.
func (a *appTest) count(words ...string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
next:
	for _, c := range a.calls {
		for _, w := range words {
			if !strings.Contains(c, w) {
				continue next
			}
		}
		n++
	}
	return n
}

// claim asks for a runner in owner/repo or, with repo "", in the organization.
func (a *appTest) claim(ctx context.Context, owner, repo string) error {
	req := request("repository", "gha-"+rand.Text(), "x")
	if repo == "" {
		req.Runner.Scope = "organization"
		repo = "web"
	}
	req.Repo = rules.Repo{Owner: owner, Name: repo}
	_, err := a.client.RunnerConfig(ctx, req)
	return err
}

// want checks how a claim ends.
func (a *appTest) want(owner, repo, wantKind string, says ...string) {
	a.t.Helper()
	err := a.claim(a.t.Context(), owner, repo)
	if kind(err) != wantKind {
		a.t.Errorf("a claim for %s/%s = %s: %v, want %s", owner, repo, kind(err), err, wantKind)
		return
	}
	for _, s := range says {
		if !strings.Contains(fmt.Sprint(err), s) {
			a.t.Errorf("a claim for %s/%s = %v, want %q", owner, repo, err, s)
		}
	}
	harmless(a.t, err)
}

func TestAnAppServesBothScopesAndReadsRuns(t *testing.T) {
	a := newAppTest(t, githubsim.Config{}, nil)
	installation := a.Install("acme")
	a.want("acme", "web", "none")
	a.want("Acme", "", "none")
	id := a.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "api", Sender: "mona"})
	j, _ := a.Job(id)
	if run, err := a.client.Run(t.Context(), rules.Repo{Owner: "acme", Name: "api"}, j.RunID); err != nil || run.Actor != "mona" {
		t.Errorf("Run = %+v, %v, want mona's", run, err)
	}
	want := []string{
		"GET /repos/acme/web/installation",
		fmt.Sprintf("POST /app/installations/%d/access_tokens", installation),
		"POST /repos/acme/web/actions/runners/generate-jitconfig",
		"POST /orgs/Acme/actions/runners/generate-jitconfig",
		fmt.Sprintf("GET /repos/acme/api/actions/runs/%d", j.RunID),
	}
	if diff := cmp.Diff(want, a.calls); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestAnOrganizationsInstallationIsFoundWithoutARepository(t *testing.T) {
	a := newAppTest(t, githubsim.Config{}, nil, "acme")
	a.want("acme", "", "none")
	if a.count("GET /orgs/acme/installation") != 1 {
		t.Errorf("requests %v, want one for the organization's installation", a.calls)
	}
}

func TestTheLimitOfOneInstallationDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{RateLimit: 4}, nil, "acme", "beta")
		for range 4 {
			a.want("acme", "web", "none")
		}
		a.want("acme", "web", "retry at", "rate limit")
		a.want("acme", "", "retry at", "rate limit")
		for range 4 {
			a.want("beta", "web", "none")
		}
		// A new token of acme's does not end the limit, and is not asked for meanwhile.
		time.Sleep(59 * time.Minute)
		a.want("acme", "web", "retry at")
		if got := a.count("access_tokens"); got != 2 {
			t.Errorf("%d tokens were asked for, want 2", got)
		}
		time.Sleep(2 * time.Minute)
		a.want("acme", "web", "none")
	})
}

func TestASecondaryLimitHoldsBackOneInstallation(t *testing.T) {
	for _, status := range []int{403, 429} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAppTest(t, githubsim.Config{}, nil, "acme", "beta")
				a.instead = func(r *http.Request) (*http.Response, error) {
					if strings.HasPrefix(r.URL.Path, "/repos/acme/") && r.Method == "POST" {
						return made(r, status, http.Header{"Retry-After": {"90"}}, `{"message": "You have exceeded a secondary rate limit."}`), nil
					}
					return nil, nil
				}
				a.want("acme", "web", "retry at")
				a.want("beta", "web", "none")
				a.instead = nil
				time.Sleep(89 * time.Second)
				a.want("acme", "web", "retry at")
				time.Sleep(time.Second)
				a.want("acme", "web", "none")
			})
		})
	}
}

// made is an answer that the simulated GitHub would not give.
func made(r *http.Request, status int, h http.Header, body string) *http.Response {
	if h == nil {
		h = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

func TestATokenIsFetchedBeforeItExpiresByOneOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, nil, "acme")
		a.instead = func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second) // so that they meet
			return nil, nil
		}
		for _, tt := range []struct {
			after  time.Duration
			tokens int
		}{{0, 1}, {57 * time.Minute, 1}, {2 * time.Minute, 2}, {5 * time.Hour, 3}} {
			time.Sleep(tt.after)
			var wg sync.WaitGroup
			for i := range 32 {
				wg.Go(func() {
					if err := a.claim(t.Context(), "acme", []string{"web", "api", ""}[i%3]); err != nil {
						t.Errorf("a claim %s later = %v", tt.after, err)
					}
				})
			}
			wg.Wait()
			if tokens, lookUps := a.count("access_tokens"), a.count("GET", "/installation"); tokens != tt.tokens || lookUps != 1 {
				t.Errorf("%s later: %d tokens and %d look-ups, want %d and 1", tt.after, tokens, lookUps, tt.tokens)
			}
		}
	})
}

func TestNobodyWaitsForAnothersTokenLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, nil, "acme")
		a.instead = func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done() // GitHub is silent
			return nil, r.Context().Err()
		}
		start := time.Now()
		var wg sync.WaitGroup
		for _, may := range []time.Duration{time.Minute, 3 * time.Second} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), may)
				defer cancel()
				err := a.claim(ctx, "acme", "web")
				if took, want := time.Since(start), min(may, 10*time.Second); kind(err) != "retry" || took != want {
					t.Errorf("a claim that may take %s = %v after %s, want retry after %s", may, err, took, want)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
	})
}

func TestWhatIsWrongWithTheAppIsSaid(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	clock := func(off time.Duration) func() time.Time {
		return func() time.Time { return time.Now().Add(off) }
	}
	for _, tt := range []struct {
		name   string
		sim    githubsim.Config
		change func(*gh.Config)
		says   string
	}{
		{"another App's key", githubsim.Config{}, func(c *gh.Config) { c.App.Key = func() (*rsa.PrivateKey, error) { return other, nil } }, "its settings page lists the private key"},
		{"another ID", githubsim.Config{}, func(c *gh.Config) { c.App.ID = 18 }, "check the App's ID, 18: api.github.com knows none"},
		{"a clock that is slow", githubsim.Config{Now: clock(3 * time.Minute)}, nil, "clock: it differs from GitHub's by -3m0s"},
		{"a clock that is fast", githubsim.Config{Now: clock(-time.Minute)}, nil, "clock: it differs from GitHub's by 1m0s"},
		{"a key that cannot be read", githubsim.Config{},
			func(c *gh.Config) { c.App.Key = gh.KeyFile("/nowhere/key.pem") }, "read the key of the GitHub App 17: open /nowhere/key.pem"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAppTest(t, tt.sim, tt.change, "acme")
				a.want("acme", "web", "fix", tt.says)
				asked := len(a.calls) - a.count("GET /app")
				a.want("acme", "web", "fix", tt.says)
				if len(a.calls)-a.count("GET /app") != asked || a.count("GET /app") > 2 {
					t.Errorf("GitHub was asked for more than whether the login is good again: %v", a.calls)
				}
			})
		})
	}
}

func TestAnAppServesOnceItIsInstalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, nil)
		const missing = "the GitHub App 17 is not installed for repository acme/web: install it for acme, on the App's settings page, with this repository"
		for range 10 {
			a.want("acme", "web", "fix", missing)
		}
		a.want("acme", "", "fix", "not installed for organization acme: install it for acme")
		if len(a.calls) != 2 {
			t.Errorf("%d requests, want 2: a refusal stands for a while", len(a.calls))
		}
		a.Install("acme", "web")
		time.Sleep(30 * time.Second)
		a.want("acme", "web", "none")

		// One that is left out does not stop the others.
		a.want("acme", "api", "fix", "check that this repository")
		a.want("acme", "api", "fix", "not installed for repository acme/api")
		a.want("acme", "web", "none")

		a.Uninstall("acme")
		a.want("acme", "web", "retry", "Bad credentials")
		a.want("acme", "web", "fix", missing)
		a.Install("acme")
		time.Sleep(30 * time.Second)
		a.want("acme", "web", "none")
		a.want("acme", "api", "none")

		a.Install("acme") // while nothing asks
		a.want("acme", "web", "retry", "Bad credentials")
		a.want("acme", "web", "none")
		time.Sleep(time.Hour)
		a.Install("acme") // while there is no token
		a.want("acme", "web", "retry", "404")
		a.want("acme", "web", "none")
	})
}

func TestARevokedTokenIsReplaced(t *testing.T) {
	a := newAppTest(t, githubsim.Config{}, nil, "acme")
	a.want("acme", "web", "none")
	a.instead = func(r *http.Request) (*http.Response, error) {
		return made(r, 401, nil, `{"message": "Bad credentials"}`), nil
	}
	a.want("acme", "web", "retry", "Bad credentials")
	a.instead = nil
	a.want("acme", "web", "none")
	if got := a.count("access_tokens"); got != 2 {
		t.Errorf("%d tokens were asked for, want 2", got)
	}
}

func TestASuspendedInstallationSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAppTest(t, githubsim.Config{}, nil, "acme", "beta")
		const says = "unsuspend the installation of the GitHub App 17 in the settings of acme"
		a.Suspend("acme", true)
		a.want("acme", "web", "fix", says)
		a.want("acme", "web", "fix", says)
		if got := a.count("access_tokens"); got != 1 {
			t.Errorf("%d tokens were asked for, want 1", got)
		}
		a.want("beta", "web", "none")
		a.Suspend("acme", false)
		time.Sleep(30 * time.Second)
		a.want("acme", "web", "none")
		a.Suspend("acme", true)
		a.want("acme", "web", "fix", says) // with a token in hand
		a.Suspend("acme", false)
		a.want("acme", "web", "none")
	})
}

func TestAMissingPermissionOfTheAppIsNamed(t *testing.T) {
	a := newAppTest(t, githubsim.Config{App: &githubsim.App{ID: appID, Permissions: map[string]string{"actions": "read"}}}, nil, "acme")
	a.want("acme", "web", "fix", "give the GitHub App 17 the repository permission Administration (write) on acme/web, and have acme accept it")
	a.want("acme", "", "fix", "give the GitHub App 17 the organization permission Self-hosted runners (write) on acme, and have acme accept it")
}

func TestOddAnswersToTheAppItselfAreSorted(t *testing.T) {
	half := func(r *http.Request) *http.Response {
		resp := made(r, 200, nil, "")
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"id": 5, "token": "ghs_half", "expires_at": "2100`), broken{}))
		return resp
	}
	for _, tt := range []struct {
		name   string
		answer func(*http.Request) (*http.Response, error)
		kind   string
	}{
		{"an HTML page", func(r *http.Request) (*http.Response, error) { return made(r, 502, nil, "<html>Unicorn!</html>"), nil }, "retry"},
		{"an HTML page for a success", func(r *http.Request) (*http.Response, error) { return made(r, 200, nil, "<html>Sign in</html>"), nil }, "retry"},
		{"a 503", func(r *http.Request) (*http.Response, error) { return made(r, 503, nil, "{}"), nil }, "retry"},
		{"a 422", func(r *http.Request) (*http.Response, error) { return made(r, 422, nil, "{}"), nil }, "retry"},
		{"nothing in it", func(r *http.Request) (*http.Response, error) { return made(r, 201, nil, "{}"), nil }, "retry"},
		{"the wrong types", func(r *http.Request) (*http.Response, error) {
			return made(r, 201, nil, `{"id": "a", "token": 1}`), nil
		}, "retry"},
		{"a token of two lines", func(r *http.Request) (*http.Response, error) {
			return made(r, 201, nil, `{"token": "ghs_a\nb", "expires_at": "2100-01-01T00:00:00Z"}`), nil
		}, "retry"},
		{"a token that never expires", func(r *http.Request) (*http.Response, error) { return made(r, 201, nil, `{"token": "ghs_a"}`), nil }, "retry"},
		{"a half of it", func(r *http.Request) (*http.Response, error) { return half(r), nil }, "retry"},
		{"2 MB", func(r *http.Request) (*http.Response, error) {
			return made(r, 201, nil, `{"token": "`+strings.Repeat("A", 2<<20)+`"}`), nil
		}, "retry"},
		{"no connection", func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, "retry"},
		{"silence", func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }, "retry"},
		{"a 429", func(r *http.Request) (*http.Response, error) { return made(r, 429, nil, "slow down"), nil }, "retry at"},
		{"a secondary limit", func(r *http.Request) (*http.Response, error) {
			return made(r, 403, http.Header{"Retry-After": {"60"}}, "{}"), nil
		}, "retry at"},
	} {
		for _, part := range []string{"/installation", "/access_tokens"} {
			t.Run(tt.name+" for "+part, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAppTest(t, githubsim.Config{}, nil, "acme", "beta")
					a.want("beta", "web", "none")
					a.instead = func(r *http.Request) (*http.Response, error) {
						if strings.HasSuffix(r.URL.Path, part) {
							return tt.answer(r)
						}
						return nil, nil
					}
					asked := a.count(part)
					a.want("acme", "web", tt.kind)
					if tt.kind == "retry at" {
						a.want("acme", "web", tt.kind)
					}
					if got := a.count(part) - asked; got != 1 {
						t.Errorf("GitHub was asked %d times, want 1", got)
					}
					a.want("beta", "web", "none") // has its token
					a.instead = nil
					time.Sleep(time.Minute)
					a.want("acme", "web", "none")
				})
			})
		}
	}
}

// broken is a connection that ends in the middle.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestAnEnterpriseServersAppIsAskedAtItsAddress(t *testing.T) {
	for _, tt := range []struct{ base, prefix string }{
		{"https://github.acme.example/api/v3/", "/api/v3"},
		{"https://api.acme.ghe.com/", ""},
	} {
		t.Run(tt.base, func(t *testing.T) {
			a := newAppTest(t, githubsim.Config{}, func(c *gh.Config) { c.BaseURL = tt.base }, "acme")
			a.instead = func(r *http.Request) (*http.Response, error) {
				if !strings.HasPrefix(r.URL.String(), tt.base) {
					t.Errorf("request to %s, want one below %s", r.URL, tt.base)
				}
				return nil, nil
			}
			a.want("acme", "web", "none")
			if a.count(" "+tt.prefix+"/app/installations/") != 1 || a.count(" "+tt.prefix+"/repos/") != 2 {
				t.Errorf("requests %v, want three below %s", a.calls, tt.prefix)
			}
		})
	}
}

func TestKeyFileIsReadEachTime(t *testing.T) {
	private, err := key()
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	good := encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(private))
	path := filepath.Join(t.TempDir(), "app.pem")
	read := gh.KeyFile(path)
	for _, tt := range []struct {
		name, content string
		mode          os.FileMode
		says          string // "": it is taken
	}{
		{"PKCS #1", good, 0o600, ""},
		{"PKCS #8", encode("PRIVATE KEY", pkcs8), 0o600, ""},
		{"a file that its group may read", good, 0o440, ""},
		{"a file that everybody may read", good, 0o644, "chmod o= " + path},
		{"a file that everybody may write", good, 0o602, "chmod o= " + path},
		{"nothing", "", 0o600, "is not a PEM file"},
		{"a token", "ghp_hidden", 0o600, "is not a PEM file"},
		{"far too much", strings.Repeat("x", 1<<20) + "\n" + good, 0o600, "is larger than"},
		{"a public key", encode("PUBLIC KEY", x509.MarshalPKCS1PublicKey(&private.PublicKey)), 0o600, `its first block is "PUBLIC KEY"`},
		{"a key with a passphrase", encode("ENCRYPTED PRIVATE KEY", pkcs8), 0o600, "without a passphrase"},
		{"a key on a curve", encode("PRIVATE KEY", ecKey), 0o600, "a different kind of key"},
		{"a cut off key", encode("RSA PRIVATE KEY", pkcs8[:20]), 0o600, "holds no RSA private key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(tt.says, "chmod") {
				t.Skip("Windows has no such permissions")
			}
			_ = os.Remove(path)
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			got, err := read()
			if tt.says == "" {
				if err != nil || !got.Equal(private) {
					t.Errorf("KeyFile = %v, want the key", err)
				}
				return
			}
			if s := fmt.Sprint(err); !strings.Contains(s, tt.says) || !strings.Contains(s, path) || strings.Contains(s, "ghp_") {
				t.Errorf("KeyFile = %v, want an error with %q and the path", err, tt.says)
			}
		})
	}
}
