package githubsim

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tokenOf returns a token of an installation.
func (s *sim) tokenOf(jwt string, installation int64) string {
	s.t.Helper()
	_, answer := s.callAs(jwt, "POST", fmt.Sprintf("/app/installations/%d/access_tokens", installation), "")
	return answer.(map[string]any)["token"].(string)
}

// token asks for a registration token.
func (s *sim) token(path string) string {
	s.t.Helper()
	status, answer := s.call("POST", path+"/actions/runners/registration-token", "")
	if status != http.StatusCreated {
		s.t.Fatalf("registration-token of %s = %d %v, want 201", path, status, answer)
	}
	return answer.(map[string]any)["token"].(string)
}

func TestARunnerRegistersItselfByToken(t *testing.T) {
	for _, tt := range []struct{ path, url string }{
		{"/repos/acme/web", "https://github.com/Acme/web"},
		{"/orgs/acme", "https://github.example/acme/"},
		{"/enterprises/big", "http://127.0.0.1:1/enterprises/big"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			s := newSim(t, Config{Enterprise: "big", Groups: map[int64]string{1: "Default", 7: "iron"}})
			id := s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}})
			status, answer := s.call("GET", strings.Replace(tt.path, "repos/acme/web", "orgs/acme", 1)+"/actions/runner-groups/7", "")
			if name := answer.(map[string]any)["name"]; status != 200 || name != "iron" {
				t.Errorf("runner group 7 = %d %v, want iron", status, answer)
			}
			config, err := s.Register(Registration{URL: tt.url, Token: s.token(tt.path), Name: "r1", Group: "Iron", Labels: []string{"X", "y"}})
			if err != nil {
				t.Fatal(err)
			}
			_, answer = s.call("GET", tt.path+"/actions/runners?name=r1", "")
			if got := names(t, answer.(map[string]any)["runners"], "name"); !slices.Equal(got, []string{"r1"}) {
				t.Errorf("runners = %v, want [r1]", got)
			}
			if err := s.Connect(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			if j, _ := s.Job(id); j.RunnerName != "r1" || j.RunnerGroupName != "iron" || j.Conclusion != "success" {
				t.Errorf("the job was run by %s of %s: %s, want success by r1 of iron", j.RunnerName, j.RunnerGroupName, j.Conclusion)
			}
			if err := s.Connect(t.Context(), config); !errors.Is(err, ErrUsedJIT) {
				t.Errorf("Connect again = %v, want ErrUsedJIT: the runner is ephemeral", err)
			}
		})
	}
}

func TestRegisterRefusesWhatConfigShWouldBeRefused(t *testing.T) {
	now := time.Now()
	s := newSim(t, Config{Now: func() time.Time { return now }})
	s.AddRepo(Repo{Owner: "acme", Name: "web"})
	good := Registration{URL: "https://github.com/acme/web", Token: s.token("/repos/acme/web"), Name: "r1", Labels: []string{"x"}}
	if _, err := s.Register(good); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Registration)
		want   error
	}{
		{"a taken name", func(*Registration) {}, ErrNameTaken},
		{"a taken name to replace", func(r *Registration) { r.Replace = true }, nil},
		{"another repository", func(r *Registration) { r.URL = "https://github.com/acme/api" }, ErrUnknownToken},
		{"its organization", func(r *Registration) { r.URL = "https://github.com/acme" }, ErrUnknownToken},
		{"another token", func(r *Registration) { r.Token = "AAA" }, ErrUnknownToken},
		{"an unknown group", func(r *Registration) { r.Name, r.Group = "r2", "iron" }, ErrUnknownGroup},
		{"a token that expired", func(r *Registration) { r.Name = "r3"; now = now.Add(time.Hour) }, ErrUnknownToken},
	} {
		r := good
		tt.change(&r)
		if _, err := s.Register(r); !errors.Is(err, tt.want) {
			t.Errorf("%s: Register = %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestAProcessConnectsByHTTP(t *testing.T) {
	s := newSim(t, Config{Token: "t"})
	s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}})
	config, err := s.Register(Registration{URL: "https://github.com/acme", Token: s.token("/orgs/acme"), Name: "r1", Labels: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("POST", ConnectPath, strings.NewReader(config)))
	if w.Code != 200 {
		t.Errorf("connect = %d %s", w.Code, w.Body)
	}
}

func TestAnEnterprisesRunnersServeAllItsOwners(t *testing.T) {
	s := newSim(t, Config{Enterprise: "big"})
	id := s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}})
	if err := s.Connect(t.Context(), s.jit("/enterprises/Big", "r1", "x")); err != nil {
		t.Fatal(err)
	}
	if j, _ := s.Job(id); j.RunnerName != "r1" {
		t.Errorf("the job's runner is %q, want r1", j.RunnerName)
	}
	s.jit("/enterprises/big", "r2", "x")
	_, answer := s.call("GET", "/enterprises/big/actions/runners", "")
	list := answer.(map[string]any)["runners"].([]any)
	if len(list) != 1 {
		t.Fatalf("runners = %v, want r2 alone", list)
	}
	path := fmt.Sprintf("/actions/runners/%v", list[0].(map[string]any)["id"])
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/orgs/acme" + path, 404},
		{"GET", "/enterprises/small" + path, 404},
		{"GET", "/enterprises/big" + path, 200},
		{"DELETE", "/enterprises/big" + path, 204},
		{"GET", "/enterprises/big" + path, 404},
	} {
		if status, _ := s.call(tt.method, tt.path, ""); status != tt.want {
			t.Errorf("%s %s = %d, want %d", tt.method, tt.path, status, tt.want)
		}
	}
}

func TestADeletedRunnerGetsNoJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Config{})
		unused, idle := register(t, s, "unused"), register(t, s, "idle")
		ended := make(chan error)
		go func() { ended <- s.Connect(t.Context(), idle) }()
		synctest.Wait()
		for _, r := range s.Runners() {
			ask(t, s, "DELETE", fmt.Sprint("/repos/acme/web/actions/runners/", r.ID), "")
		}
		if err := <-ended; !errors.Is(err, ErrRemoved) {
			t.Errorf("Connect of an idle runner = %v, want ErrRemoved", err)
		}
		if err := s.Connect(t.Context(), unused); !errors.Is(err, ErrRemoved) {
			t.Errorf("Connect with an old configuration = %v, want ErrRemoved", err)
		}
	})
}
