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
	const script = `cd "$NOMAD_SECRETS_DIR" || exit 1
app=$SWITCHYARD_GITHUB_APP_ID,$(basename "$SWITCHYARD_GITHUB_APP_KEY_FILE")
token=$(basename "$SWITCHYARD_GITHUB_TOKEN_FILE")
echo "app=$app token=$token"
for f in webhook.secret "$(basename "$SWITCHYARD_GITHUB_APP_KEY_FILE$SWITCHYARD_GITHUB_TOKEN_FILE")"; do ls -ln "$f" | cut -c1-10; cat "$f"; echo; done
cat "$SWITCHYARD_RULES" "$SWITCHYARD_ACCESS"
[ -n "$PGPASSFILE" ] || exit 0
echo "db=$SWITCHYARD_DB mode=$PGSSLMODE ca=$(test -z "$PGSSLROOTCERT" || cat "$PGSSLROOTCERT")"
ls -ln "$PGPASSFILE" | cut -c1-10; cat "$PGPASSFILE"
`
	const app = "app=123456,app.pem token=\n-r--------\ns3cret\n-r--------\n-----BEGIN\nkey\n-----END\nversion: 1\ntokens:\n"
	const token = "app=, token=github.token\n-r--------\ns3cret\n-r--------\nt0ken\nversion: 1\ntokens:\n"
	const db = "db=postgres://switchyard@postgres.example.com/switchyard mode=verify-full "
	for i, test := range []struct {
		name, file string
		items      api.VariableItems
		want       string
	}{
		{"as an App", "switchyard", api.VariableItems{"github_app_id": "123456", "github_app_key": "-----BEGIN\nkey\n-----END"}, app},
		{"by a token", "switchyard", api.VariableItems{"github_token": "t0ken"}, token},
		{"replicas as an App, with a CA", "switchyard-ha",
			api.VariableItems{"github_app_id": "123456", "github_app_key": "-----BEGIN\nkey\n-----END", "db_ca": "CA", "db_password": `p:\w` + "\n"},
			app + db + "ca=CA\n-r--------\n" + `*:*:*:*:p\:\\w` + "\n"},
		{"replicas by a token", "switchyard-ha", api.VariableItems{"github_token": "t0ken", "db_password": "pw"},
			token + db + "ca=\n-r--------\n*:*:*:*:pw\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			src, err := os.ReadFile(test.file + ".nomad.hcl")
			if err != nil {
				t.Fatal(err)
			}
			id := fmt.Sprintf("switchyard-%d-%d", time.Now().UnixNano(), i)
			var job api.Job
			hcl := strings.ReplaceAll(string(src), `"nomad/jobs/`+test.file+`"`, `"nomad/jobs/`+id+`"`) // which this job may read
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
			job.ID, job.Name, job.Type, job.Constraints, job.Spreads, job.Update = &id, &id, &batch, nil, nil, nil
			group := job.TaskGroups[0]
			group.Count, group.Volumes, group.Networks, group.Services, group.Update = new(1), nil, nil, nil, nil
			group.RestartPolicy = &api.RestartPolicy{Attempts: new(0), Mode: new("fail")}
			task := group.Tasks[0]
			task.Driver, task.User, task.Artifacts, task.VolumeMounts = "raw_exec", "", nil, nil
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

// parsed returns a file of this directory as Nomad parses it.
func parsed(t *testing.T, client *api.Client, file string, variables ...string) *api.Job {
	t.Helper()
	src, err := os.ReadFile(file + ".nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	var job api.Job
	if err := json.Unmarshal(parse(t, client, src, variables...), &job); err != nil {
		t.Fatal(err)
	}
	return &job
}

func TestReplicasAreReplacedOneByOne(t *testing.T) {
	client := agent(t)
	job := parsed(t, client, "switchyard-ha")
	group := job.TaskGroups[0]
	if *group.Count != 2 {
		t.Errorf("%d replicas, want 2", *group.Count)
	}
	if d := cmp.Diff([]*api.Constraint{
		{LTarget: "${attr.kernel.name}", RTarget: "linux", Operand: "="},
		{RTarget: "true", Operand: api.ConstraintDistinctHosts},
	}, job.Constraints); d != "" {
		t.Errorf("constraints (-want +got):\n%s", d)
	}
	if u := group.Update; *u.Canary != 1 || !*u.AutoPromote || *u.MaxParallel != 1 || !*u.AutoRevert || *u.MinHealthyTime <= 0 || *u.ProgressDeadline > 5*time.Minute {
		t.Errorf("update = %+v", u)
	}
	if *group.ShutdownDelay <= 0 {
		t.Error("load balancers do not learn of a stop first")
	}
	if len(group.Volumes) > 0 || len(group.Tasks[0].VolumeMounts) > 0 {
		t.Error("a replica is bound to a node by a volume")
	}
	if len(group.Networks[0].ReservedPorts) > 0 {
		t.Errorf("ports %v are fixed, so that an update on the same node waits for them", group.Networks[0].ReservedPorts)
	}
	// The same process as alone, checked in the same way.
	single := parsed(t, client, "switchyard").TaskGroups[0]
	if d := cmp.Diff(single.Services[1].Checks, group.Services[1].Checks); d != "" {
		t.Errorf("checks (-alone +replica):\n%s", d)
	}
	for _, g := range []*api.TaskGroup{single, group} {
		if k := g.Tasks[0].KillTimeout; k.Seconds() <= 20 {
			t.Errorf("kill_timeout %v is not longer than --grace", k)
		}
	}
	for _, key := range []string{"PGPASSWORD", "SWITCHYARD_GITHUB_TOKEN", "SWITCHYARD_WEBHOOK_SECRET"} {
		if _, ok := group.Tasks[0].Env[key]; ok {
			t.Errorf("the job has %s", key)
		}
	}

	job = parsed(t, client, "switchyard-ha", "replicas = 3", "distinct_hosts = false", "port = 8080", `sslmode = "disable"`, `tags = ["traefik.enable=true"]`,
		`db = "postgres://switchyard@10.0.0.5:5432/switchyard"`, `public_url = "https://ci.example.com"`)
	group = job.TaskGroups[0]
	env := group.Tasks[0].Env
	if *group.Count != 3 || job.Constraints[1].RTarget != "false" || group.Networks[0].ReservedPorts[0].Value != 8080 || group.Services[0].Tags[0] != "traefik.enable=true" ||
		env["PGSSLMODE"] != "disable" || env["SWITCHYARD_DB"] != "postgres://switchyard@10.0.0.5:5432/switchyard" || env["SWITCHYARD_PUBLIC_URL"] != "https://ci.example.com" {
		t.Errorf("the variables have no effect: %d replicas, %+v, %+v, %v, %v", *group.Count, job.Constraints[1], group.Networks[0], group.Services[0].Tags, env)
	}
}

func TestSwitchyardRunsFromAnArchiveOrAnImage(t *testing.T) {
	client := agent(t)
	for _, file := range []string{"switchyard", "switchyard-ha"} {
		task := parsed(t, client, file, `binary = "https://example.com/switchyard_1.2.0_linux_arm64.tar.gz"`).TaskGroups[0].Tasks[0]
		if a := task.Artifacts; task.Driver != "exec" || len(a) != 1 || *a[0].GetterSource != "https://example.com/switchyard_1.2.0_linux_arm64.tar.gz" ||
			a[0].GetterMode != nil || *a[0].RelativeDest != "local" || !cmp.Equal(task.Config, map[string]any{"command": "${NOMAD_TASK_DIR}/switchyard", "args": []any{"serve"}}) {
			t.Errorf("%s: %s runs %v of %+v", file, task.Driver, task.Config, a)
		}
		task = parsed(t, client, file, `image = "ghcr.io/acme/switchyard:1.2.0"`).TaskGroups[0].Tasks[0]
		want := map[string]any{"image": "ghcr.io/acme/switchyard:1.2.0", "args": []any{"serve"}, "network_mode": "host",
			"readonly_rootfs": true, "cap_drop": []any{"all"}, "security_opt": []any{"no-new-privileges"}}
		if d := cmp.Diff(want, task.Config); d != "" || task.Driver != "docker" || len(task.Artifacts) > 0 {
			t.Errorf("%s: %s has %d artifacts, and (-want +got):\n%s", file, task.Driver, len(task.Artifacts), d)
		}
		if task.User != "nobody" {
			t.Errorf("%s: its user is %q, and its secrets are nobody's", file, task.User)
		}
	}
}

func TestThePostgreSQLForTryingIsMarkedAsSuch(t *testing.T) {
	src, err := os.ReadFile("postgres-sample.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if head, _, _ := strings.Cut(string(src), "\njob "); !strings.Contains(head, "FOR TRYING ONLY: one machine, no backups") {
		t.Errorf("its first lines do not say so:\n%s", head)
	}
	task := parsed(t, agent(t), "postgres-sample").TaskGroups[0].Tasks[0]
	image, _ := task.Config["image"].(string)
	if repo, tag, _ := strings.Cut(image, ":"); repo != "docker.io/library/postgres" || strings.Count(tag, ".") != 1 {
		t.Errorf("image %s, want the official one at one version", image)
	}
	if _, ok := task.Env["POSTGRES_PASSWORD"]; ok {
		t.Error("the job has the password")
	}
}

func TestEachFileIsDescribed(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range load(t, ".").Names() { // whose syntax is checked thereby
		if !strings.Contains(string(readme), "| `"+name+"` |") && !strings.Contains(string(readme), "("+name+".nomad.hcl)") {
			t.Errorf("README.md does not describe %s", name)
		}
	}
}
