package jobspecs_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
)

// builtins returns the parsed forms of the built-in jobspecs by name.
func builtins(t *testing.T) map[string]*api.Job {
	t.Helper()
	set := load(t, "")
	jobs := map[string]*api.Job{}
	for _, name := range set.Names() {
		spec, _ := set.Get(name)
		if spec.Parsed == nil {
			t.Fatalf("%s has changed since its parsed form was made: with a Nomad at hand run go test ./jobspecs -update", name)
		}
		var job api.Job
		if err := json.Unmarshal(spec.Parsed, &job); err != nil {
			t.Fatalf("parsed form of %s: %v", name, err)
		}
		jobs[name] = &job
	}
	return jobs
}

// runner returns the runner task of a jobspec.
func runner(t *testing.T, job *api.Job) *api.Task {
	t.Helper()
	if len(job.TaskGroups) != 1 {
		t.Fatalf("%s: want one group", *job.ID)
	}
	for _, task := range job.TaskGroups[0].Tasks {
		if task.Meta["switchyard"] == "runner" {
			return task
		}
	}
	t.Fatalf("%s: no task's meta marks the runner", *job.ID)
	return nil
}

// script returns the text that a task's template puts into a file, by the file's path.
func script(t *testing.T, task *api.Task, path string) string {
	t.Helper()
	for _, template := range task.Templates {
		if *template.DestPath == path {
			return *template.EmbeddedTmpl
		}
	}
	t.Fatalf("no template makes %s", path)
	return ""
}

func TestBuiltins(t *testing.T) {
	for name, job := range builtins(t) {
		t.Run(name, func(t *testing.T) {
			task := runner(t, job)
			kernel := name[strings.LastIndex(name, "-")+1:]
			switch {
			case kernel == "macos":
				kernel = "darwin"
			case strings.Contains(name, "linux"):
				kernel = "linux"
			}
			group := job.TaskGroups[0]

			if *job.ID != name || *job.Type != "batch" {
				t.Errorf("job %s of type %s, want %s of type batch", *job.ID, *job.Type, name)
			}
			if r := group.RestartPolicy; *r.Attempts != 0 || *r.Mode != "fail" {
				t.Errorf("restart %d times, then %s; a used configuration must not start again", *r.Attempts, *r.Mode)
			}
			if r := group.ReschedulePolicy; *r.Attempts != 0 || *r.Unlimited {
				t.Error("reschedules")
			}
			if d := group.Disconnect; d == nil || d.LostAfter == nil || *d.LostAfter < 10*time.Minute {
				t.Error("a node that is out of touch for a while loses its job")
			}
			if task.KillTimeout.Seconds() < 60 {
				t.Errorf("kill_timeout %v is less than a job needs to be cancelled", *task.KillTimeout)
			}

			wantArtifact := []*api.TaskArtifact{{
				GetterSource:  new("${NOMAD_META_SWITCHYARD_CLAIM_URL}"),
				GetterHeaders: map[string]string{"Authorization": "Bearer ${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}"},
				GetterMode:    new("file"),
				RelativeDest:  new("secrets/runner.jit"),
			}}
			if diff := cmp.Diff(wantArtifact, task.Artifacts); diff != "" {
				t.Errorf("claim (-want +got):\n%s", diff)
			}
			path := map[string]string{"windows": "local/start.ps1", "linux": "local/start.sh", "darwin": "local/start.sh"}[kernel]
			if task.Driver == "tart" {
				path = "secrets/start.sh" // the machine gets that directory alone
			}
			verifyHook, script := script(t, task, strings.Replace(path, "start", "verify", 1)), script(t, task, path)
			if strings.Contains(script, "${") || strings.Contains(script, "%{") || strings.Contains(script, "{{") {
				t.Error("HCL or Nomad's templates would change the start script")
			}
			if strings.Contains(verifyHook, "${") || strings.Contains(verifyHook, "%{") || strings.Contains(verifyHook, "{{") || !strings.Contains(verifyHook, "NOMAD_META_SWITCHYARD_VERIFY_TOKEN") {
				t.Error("HCL or Nomad's templates would change the hook, or it does not ask")
			}
			if strings.ContainsFunc(script, func(r rune) bool { return r > '~' }) {
				t.Error("the start script is not ASCII; Windows PowerShell misreads it")
			}
			if !strings.Contains(script, "ACTIONS_RUNNER_INPUT_JITCONFIG") || strings.Contains(strings.ToLower(script), "--jitconfig") {
				t.Error("the configuration reaches the runner otherwise than by its environment")
			}
			attrs := map[string]string{} // of constraints, to what they ask
			for _, c := range job.Constraints {
				attrs[c.LTarget] = c.Operand + c.RTarget
			}
			want := map[string]string{"${attr.kernel.name}": "=" + kernel}
			if _, ok := task.Env["SWITCHYARD_RUNNER_DIR"]; ok {
				want["${meta.switchyard_runner_dir}"] = "is_set"
			}
			if task.Driver == "tart" {
				want["${attr.cpu.arch}"] = "=arm64"
			}
			if diff := cmp.Diff(want, attrs); diff != "" {
				t.Errorf("constraints (-want +got):\n%s", diff)
			}
			if task.Driver == "raw_exec" && task.Env["SWITCHYARD_RUNNER_DIR"] != "${meta.switchyard_runner_dir}" {
				t.Errorf("env %v does not say where the runner lies", task.Env)
			}
			if _, ok := task.Env["RUNNER_ALLOW_RUNASROOT"]; ok || task.User == "root" || strings.Contains(script, "RUNNER_ALLOW_RUNASROOT") {
				t.Error("the runner may be root")
			}
			if task.Driver == "tart" {
				return // it has no environment, and TestTartMacOS says how it refuses registration tokens
			}
			if !strings.Contains(script, "ACTIONS_RUNNER_INPUT_TOKEN") || strings.Contains(script, "--token") {
				t.Error("the registration token reaches config otherwise than by its environment")
			}
			if !strings.Contains(script, " --unattended --ephemeral --disableupdate --no-default-labels --replace") {
				t.Error("a runner that registers itself is not ephemeral, asks questions, or has labels of its own")
			}
			if task.Env["ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"] != "1" {
				t.Error("an outdated runner would look like success")
			}
		})
	}
}

func TestContainersIsolate(t *testing.T) {
	for name, more := range map[string][]string{"docker-linux": {"work_dir"}, "podman-linux": {"working_dir"}, "docker-linux-dind": {"work_dir", "network_mode", "volumes"}} {
		t.Run(name, func(t *testing.T) {
			job := builtins(t)[name]
			task := runner(t, job)
			allowed := append([]string{"entrypoint", "image", "image_pull_timeout", "pids_limit"}, more...)
			for key := range task.Config {
				if !slices.Contains(allowed, key) {
					t.Errorf("config %s: does it widen what a workflow can reach?", key)
				}
			}
			image, _ := task.Config["image"].(string)
			repo, tag, _ := strings.Cut(image, ":")
			if repo != "ghcr.io/actions/actions-runner" || tag != jobspecs.RunnerVersion {
				t.Errorf("image %s, want the official one at version %s", image, jobspecs.RunnerVersion)
			}
			if task.User != "runner" || task.KillSignal != "SIGINT" {
				t.Errorf("user %q, kill_signal %q", task.User, task.KillSignal)
			}
			if len(task.VolumeMounts) > 0 || len(job.TaskGroups[0].Volumes) > 0 {
				t.Error("mounts volumes")
			}
		})
	}
}

func TestDockerLinuxDindSharesOnlyItsAllocation(t *testing.T) {
	job := builtins(t)["docker-linux-dind"]
	daemon, task := job.TaskGroups[0].Tasks[0], runner(t, job)
	if l := daemon.Lifecycle; daemon.Name != "docker" || l == nil || l.Hook != "prestart" || !l.Sidecar {
		t.Errorf("task %s starts by %+v, and the runner has no daemon", daemon.Name, l)
	}
	if task.Config["network_mode"] != "container:docker-${NOMAD_ALLOC_ID}" {
		t.Errorf("network %v is not the daemon's: ports of services are not on localhost", task.Config["network_mode"])
	}
	if _, ok := task.Config["privileged"]; ok {
		t.Error("the runner is privileged")
	}
	paths := map[string]string{} // in the daemon's container, of what is in the runner's
	for _, task := range job.TaskGroups[0].Tasks {
		volumes, _ := task.Config["volumes"].([]any)
		for _, v := range volumes {
			from, to, _ := strings.Cut(v.(string), ":")
			if !strings.HasPrefix(from, "../alloc/") {
				t.Errorf("task %s mounts %s of the node", task.Name, from)
			}
			if was, ok := paths[to]; ok && was != from {
				t.Errorf("%s is %s here and %s there", to, from, was)
			}
			paths[to] = from
		}
	}
	if d := cmp.Diff(map[string]string{"/home/runner/_work": "../alloc/data", "/home/runner/externals": "../alloc/tmp"}, paths); d != "" {
		t.Errorf("shared paths (-want +got):\n%s", d)
	}
}

func TestDockerWindowsHasTheRunnerOfItsNode(t *testing.T) {
	task := runner(t, builtins(t)["docker-windows"])
	want := map[string]any{
		"image":              "mcr.microsoft.com/windows/servercore:ltsc2022",
		"entrypoint":         []any{"powershell.exe", "-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File", `C:\local\start.ps1`},
		"image_pull_timeout": "30m",
		"volumes":            []any{`${meta.switchyard_runner_dir}:C:\actions-runner:ro`},
		"isolation":          "hyperv",
	}
	if d := cmp.Diff(want, task.Config); d != "" {
		t.Errorf("config (-want +got):\n%s", d)
	}
	if task.Env["SWITCHYARD_RUNNER_DIR"] != `C:\actions-runner` {
		t.Errorf("env %v does not say where the runner lies", task.Env)
	}
}

// The services beside the runners take public images at one version, and are no runners.
func TestCaches(t *testing.T) {
	client := agent(t)
	for file, want := range map[string]struct {
		image, data string
		variables   []string
		env         map[string]string
	}{
		"registry-mirror": {"docker.io/library/registry:", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", []string{`remote = "https://ghcr.io"`, `keep = "24h"`, "port = 5001"},
			map[string]string{"REGISTRY_PROXY_REMOTEURL": "https://ghcr.io", "REGISTRY_PROXY_TTL": "24h"}},
		"actions-cache": {"ghcr.io/falcondev-oss/github-actions-cache-server:", "STORAGE_FILESYSTEM_PATH", []string{`url = "https://cache.example.com"`, "keep_days = 7", "port = 3001"},
			map[string]string{"API_BASE_URL": "https://cache.example.com", "CACHE_CLEANUP_OLDER_THAN_DAYS": "7"}},
	} {
		t.Run(file, func(t *testing.T) {
			group := parsed(t, client, file, want.variables...).TaskGroups[0]
			task := group.Tasks[0]
			image, _ := task.Config["image"].(string)
			if tag, ok := strings.CutPrefix(image, want.image); !ok || strings.Count(tag, ".") != 2 {
				t.Errorf("image %s, want one release of %s", image, want.image)
			}
			for key, value := range want.env {
				if task.Env[key] != value {
					t.Errorf("%s = %q, want %q by its variable", key, task.Env[key], value)
				}
			}
			if !strings.HasPrefix(task.Env[want.data], "${NOMAD_ALLOC_DIR}/data") || !*group.EphemeralDisk.Sticky {
				t.Errorf("%s = %s: what it has is lost at an update", want.data, task.Env[want.data])
			}
			if p := group.Networks[0].ReservedPorts[0]; p.Value != 3001 && p.Value != 5001 {
				t.Errorf("port %d", p.Value)
			}
			if _, ok := load(t, "").Get(file); ok {
				t.Error("rules can name it as a runner")
			}
			if task.User != "nobody" {
				t.Errorf("user %s", task.User)
			}
		})
	}
}
