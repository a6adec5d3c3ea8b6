package jobspecs_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/router/nomadsim/nomadtest"
)

var update = flag.Bool("update", false, "write the parsed forms again, with a real Nomad")

// agent returns a client of a real Nomad.
func agent(t *testing.T) *api.Client {
	t.Helper()
	addr := nomadtest.Agent(t)
	if addr == "" {
		t.Skip("needs a real Nomad: put nomad on PATH, or its address in SWITCHYARD_NOMAD_ADDR")
	}
	client, err := api.NewClient(&api.Config{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// parse has Nomad parse HCL. Fields that are not set are left out: which ones
// there are differs between versions of Nomad.
func parse(t *testing.T, client *api.Client, hcl []byte, variables ...string) []byte {
	t.Helper()
	body, err := json.Marshal(api.JobsParseRequest{JobHCL: string(hcl), Variables: strings.Join(variables, "\n")})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(client.Address()+"/v1/jobs/parse", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("parse: %s, %v, %s", resp.Status, err, answer)
	}
	var job any
	if err := json.Unmarshal(answer, &job); err != nil {
		t.Fatal(err)
	}
	drop(job, nil)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("  ", "  ")
	if err := enc.Encode(job); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// withoutFalse reads JSON without the fields that are false: an older Nomad does not
// have them all, such as an artifact's Chown before 1.9.2.
func withoutFalse(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	drop(v, false)
	return v
}

// drop removes the fields with a value.
func drop(v, unwanted any) {
	switch v := v.(type) {
	case map[string]any:
		maps.DeleteFunc(v, func(_ string, value any) bool { return value == unwanted })
		for _, value := range v {
			drop(value, unwanted)
		}
	case []any:
		for _, value := range v {
			drop(value, unwanted)
		}
	}
}

func TestParsedFormsAreWhatNomadAnswers(t *testing.T) {
	client := agent(t)
	set := load(t, "")
	for _, name := range set.Names() {
		spec, _ := set.Get(name)
		answer := parse(t, client, spec.Source)
		if *update {
			file := fmt.Sprintf("{\n  \"hcl_sha256\": %q,\n  \"job\": %s\n}\n", spec.Hash, answer)
			if err := os.WriteFile(name+".parsed.json", []byte(file), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if diff := cmp.Diff(withoutFalse(t, answer), withoutFalse(t, spec.Parsed)); diff != "" {
			t.Errorf("%s.parsed.json is not what this Nomad makes of %s; run go test ./jobspecs -update (-nomad +file):\n%s", name, spec.Path, diff)
		}
	}
}

func TestNomadValidatesEachFile(t *testing.T) {
	client := agent(t)
	files, err := filepath.Glob("*.nomad.hcl")
	if err != nil || len(files) != 12 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var job api.Job
			if err := json.Unmarshal(parse(t, client, src), &job); err != nil {
				t.Fatal(err)
			}
			answer, _, err := client.Jobs().Validate(&job, nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Error != "" || answer.Warnings != "" {
				t.Errorf("%s\n%s", answer.Error, answer.Warnings)
			}
		})
	}
}

// TestRunnersOnNomad runs raw-exec-macos with a runner that is a script, on
// whatever Unix the agent is.
func TestRunnersOnNomad(t *testing.T) {
	client := agent(t)
	var (
		mu     sync.Mutex
		claims = map[string]string{} // authorization to answer
		asked  []string
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		answer, ok := claims[r.Header.Get("Authorization")]
		if !ok {
			http.Error(w, "used already", http.StatusGone)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	runnerDir := t.TempDir()
	put(t, filepath.Join(runnerDir, "run.sh"), fakeRunner, 0o755)
	put(t, filepath.Join(runnerDir, "config.sh"), fakeConfig, 0o755)

	tests := []struct {
		name, claim string
		token       bool // the claim is a registration token
		used        bool
		status      string
		exitCode    int
		event       string // one of the task's events
	}{
		{name: "a configured runner runs and ends", claim: "s3cret", status: "complete", event: api.TaskTerminated},
		{name: "an empty claim completes", claim: "", status: "complete", event: api.TaskTerminated},
		{name: "a refused claim fails and is not tried again", used: true, status: "failed", event: api.TaskArtifactDownloadFailed},
		{name: "the runner's exit code is the task's", claim: "exit7", status: "failed", exitCode: 7, event: api.TaskNotRestarting},
		{name: "a runner that registers itself runs and ends", token: true, claim: "t0ken\nLarge machines\n", status: "complete", event: api.TaskTerminated},
		{name: "a registration token that is refused fails the task", token: true, claim: "refused\n\n", status: "failed", exitCode: 1, event: api.TaskNotRestarting},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			token := fmt.Sprint("token-", i)
			mu.Lock()
			asked = nil
			if !test.used {
				claims["Bearer "+token] = test.claim
			}
			mu.Unlock()
			job := builtins(t)["raw-exec-macos"]
			id := fmt.Sprintf("switchyard-jobspecs-%d-%d", time.Now().UnixNano(), i)
			job.ID, job.Name, job.Constraints = &id, &id, nil // the agent is no Mac, and has no meta
			job.Meta = map[string]string{"SWITCHYARD_REGISTRATION": "jit", "SWITCHYARD_CLAIM_URL": server.URL + "/runner/v1/claim", "SWITCHYARD_CLAIM_TOKEN": token}
			if test.token {
				job.Meta["SWITCHYARD_REGISTRATION"] = "token"
				job.Meta["RUNNER_URL"], job.Meta["RUNNER_NAME"], job.Meta["RUNNER_LABELS"] = "https://github.com/acme", id, "self-hosted,linux"
			}
			task := runner(t, job)
			task.Env["SWITCHYARD_RUNNER_DIR"] = runnerDir
			task.Resources = &api.Resources{CPU: new(50), MemoryMB: new(32)}
			job.TaskGroups[0].EphemeralDisk.SizeMB = new(150)
			if _, _, err := client.Jobs().Register(job, nil); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _, _ = client.Jobs().Deregister(id, true, nil) }()

			alloc := ended(t, client, id)
			state := alloc.TaskStates["runner"]
			if alloc.ClientStatus != test.status || state.Restarts != 0 {
				t.Errorf("status %s after %d restarts, want %s after 0", alloc.ClientStatus, state.Restarts, test.status)
			}
			at := slices.IndexFunc(state.Events, func(e *api.TaskEvent) bool { return e.Type == test.event })
			if at < 0 {
				t.Fatalf("no event %s in %s", test.event, events(state))
			}
			terminated := slices.IndexFunc(state.Events, func(e *api.TaskEvent) bool { return e.Type == api.TaskTerminated })
			if terminated >= 0 && state.Events[terminated].ExitCode != test.exitCode {
				t.Errorf("exit code %d, want %d", state.Events[terminated].ExitCode, test.exitCode)
			}
			mu.Lock()
			defer mu.Unlock()
			if diff := cmp.Diff([]string{"GET /runner/v1/claim Bearer " + token}, asked); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// ended waits for the end of the one allocation of a job.
func ended(t *testing.T, client *api.Client, id string) *api.AllocationListStub {
	t.Helper()
	var allocs []*api.AllocationListStub
	nomadtest.Await(t, "the end of "+id, func() bool {
		var err error
		if allocs, _, err = client.Jobs().Allocations(id, true, nil); err != nil {
			t.Fatal(err)
		}
		return len(allocs) == 1 && (allocs[0].ClientStatus == "complete" || allocs[0].ClientStatus == "failed")
	})
	return allocs[0]
}

func events(state *api.TaskState) string {
	var b strings.Builder
	for _, e := range state.Events {
		fmt.Fprintf(&b, "%s (%s); ", e.Type, e.DisplayMessage)
	}
	return b.String()
}
