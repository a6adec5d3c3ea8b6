package jobspecs_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"
)

// TestSwitchyardGetsItsSecrets runs a script in the place of Switchyard, and
// without its volume, on whatever Unix the agent is.
func TestSwitchyardGetsItsSecrets(t *testing.T) {
	client := agent(t)
	src, err := os.ReadFile("switchyard.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	const script = `cd "$NOMAD_SECRETS_DIR" || exit 1
app=$SWITCHYARD_GITHUB_APP_ID,$(basename "$SWITCHYARD_GITHUB_APP_KEY_FILE")
token=$(basename "$SWITCHYARD_GITHUB_TOKEN_FILE")
echo "app=$app token=$token"
for f in webhook.secret "$(basename "$SWITCHYARD_GITHUB_APP_KEY_FILE$SWITCHYARD_GITHUB_TOKEN_FILE")"; do ls -ln "$f" | cut -c1-10; cat "$f"; echo; done
cat "$SWITCHYARD_RULES" "$SWITCHYARD_ACCESS"
`
	for i, test := range []struct {
		name  string
		items api.VariableItems
		want  string
	}{
		{"as an App", api.VariableItems{"github_app_id": "123456", "github_app_key": "-----BEGIN\nkey\n-----END"},
			"app=123456,app.pem token=\n-r--------\ns3cret\n-r--------\n-----BEGIN\nkey\n-----END\nversion: 1\ntokens:\n"},
		{"by a token", api.VariableItems{"github_token": "t0ken"},
			"app=, token=github.token\n-r--------\ns3cret\n-r--------\nt0ken\nversion: 1\ntokens:\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := fmt.Sprintf("switchyard-%d-%d", time.Now().UnixNano(), i)
			var job api.Job
			hcl := strings.ReplaceAll(string(src), "nomad/jobs/switchyard", "nomad/jobs/"+id) // which this job may read
			if err := json.Unmarshal(parse(t, client, []byte(hcl)), &job); err != nil {
				t.Fatal(err)
			}
			test.items["webhook_secret"], test.items["rules"], test.items["access"] = "s3cret", "version: 1\n", "tokens:\n"
			path := "nomad/jobs/" + id
			if _, _, err := client.Variables().Create(&api.Variable{Path: path, Items: test.items}, nil); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = client.Variables().Delete(path, nil) }()
			batch := "batch"
			job.ID, job.Name, job.Type, job.Constraints, job.Update = &id, &id, &batch, nil, nil
			group := job.TaskGroups[0]
			group.Volumes, group.Networks, group.Services, group.Update = nil, nil, nil, nil
			group.RestartPolicy = &api.RestartPolicy{Attempts: new(0), Mode: new("fail")}
			task := group.Tasks[0]
			task.Driver, task.Artifacts, task.VolumeMounts = "raw_exec", nil, nil
			task.Config = map[string]any{"command": "/bin/sh", "args": []string{"-c", script}}
			task.Resources = &api.Resources{CPU: new(50), MemoryMB: new(32)}
			if _, _, err := client.Jobs().Register(&job, nil); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _, _ = client.Jobs().Deregister(id, true, nil) }()

			stub := ended(t, client, id)
			alloc, _, err := client.Allocations().Info(stub.ID, nil)
			if err != nil {
				t.Fatal(err)
			}
			var said []string
			for _, kind := range []string{"stdout", "stderr"} {
				r, err := client.AllocFS().Cat(alloc, "/alloc/logs/switchyard."+kind+".0", nil)
				if err != nil {
					t.Fatalf("%s of the task: %v; %s", kind, err, events(stub.TaskStates["switchyard"]))
				}
				b, _ := io.ReadAll(r)
				r.Close()
				said = append(said, string(b))
			}
			if d := cmp.Diff([]string{test.want, ""}, said); d != "" {
				t.Errorf("what Switchyard gets (-want +got):\n%s", d)
			}
		})
	}
}
