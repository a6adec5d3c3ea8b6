package githubsim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// GitHub's own descriptions, which do not lie in the repository.
const shared = "../../../shared/github/"

// hookSchema returns the schema of the workflow_job event; nil, and a line in
// the log, when it is absent.
func hookSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	file, err := filepath.Abs(shared + "workflow_job.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Logf("payloads are not checked against GitHub's schema: %v", err)
		return nil
	}
	c := jsonschema.NewCompiler()
	// The library's own check of this format takes none with an operator, such as {/id}.
	c.RegisterFormat(&jsonschema.Format{Name: "uri-template", Validate: func(v any) error {
		if u, ok := v.(string); ok && (!strings.HasPrefix(u, "https://") || strings.Count(u, "{") != strings.Count(u, "}")) {
			return fmt.Errorf("%q is no URI template", u)
		}
		return nil
	}})
	schema, err := c.Compile(file)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// checkPayload holds a payload against the schema, if there is one.
func checkPayload(t *testing.T, schema *jsonschema.Schema, body []byte) {
	t.Helper()
	if schema == nil {
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Errorf("payload: %v", err)
		return
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("the payload is not GitHub's: %v\n%s", err, body)
	}
}

func TestGitHubsExamplesPassThePayloadCheck(t *testing.T) {
	schema := hookSchema(t)
	examples, err := filepath.Glob(shared + "payloads/workflow_job.*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, example := range examples {
		if strings.HasSuffix(example, "in_progress.api.github.com.0.json") {
			continue // an old shape that its own schema refuses
		}
		body, err := os.ReadFile(example)
		if err != nil {
			t.Fatal(err)
		}
		checkPayload(t, schema, body)
	}
}

func TestPayloadsHaveTheKeysOfGitHubsExamples(t *testing.T) {
	job := Job{
		JobSpec: JobSpec{Owner: "acme", Repo: "web", RunID: 10, Labels: []string{"self-hosted", "linux"}},
		ID:      11,
	}
	waiting := job
	waiting.Waiting, waiting.Status = true, "waiting"
	running := job
	running.Status, running.RunnerID, running.RunnerName, running.RunnerGroupID, running.RunnerGroupName = "in_progress", 5, "r", 1, "Default"
	completed := running
	completed.Status, completed.Conclusion = "completed", "success"

	for _, tt := range []struct {
		name, example, action string
		job                   Job
	}{
		{"a queued job", "workflow_job.queued.api.github.com.5.json", "queued", job},
		{"a queued job that waits", "workflow_job.queued.api.github.com.6.json", "queued", waiting},
		{"a waiting job", "workflow_job.waiting.api.github.com.7.json", "waiting", waiting},
		{"a job in progress", "workflow_job.in_progress.api.github.com.3.json", "in_progress", running},
		{"a completed job", "workflow_job.completed.api.github.com.1.json", "completed", completed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			example, err := os.ReadFile(shared + "payloads/" + tt.example)
			if os.IsNotExist(err) {
				t.Skipf("GitHub's example is absent: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			got, want := decode(t, Payload(tt.job, tt.action)), decode(t, example)
			// The examples are of owners and hooks of both kinds.
			for _, m := range []map[string]any{got, want} {
				delete(m, "organization")
				delete(m, "installation")
			}
			if want["deployment"] == nil {
				delete(got, "deployment")
			}
			// These came to GitHub's payloads later than to some of its examples.
			for _, key := range []string{"has_discussions", "allow_forking"} {
				delete(got["repository"].(map[string]any), key)
				delete(want["repository"].(map[string]any), key)
			}
			if diff := cmp.Diff(keys("", want), keys("", got)); diff != "" {
				t.Errorf("keys differ from GitHub's (-want +got):\n%s", diff)
			}
		})
	}
}

// keys lists the paths of all keys in v, leaving out what is below a value
// that differs from one deployment to the next.
func keys(path string, v any) []string {
	var all []string
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			all = append(all, path+key)
			if key != "performed_via_github_app" && key != "payload" && key != "license" {
				all = append(all, keys(path+key+".", value)...)
			}
		}
	case []any:
		for _, value := range v {
			all = append(all, keys(path+"[].", value)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func decode(t *testing.T, body []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
