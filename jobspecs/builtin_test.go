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
	if len(job.TaskGroups) != 1 || len(job.TaskGroups[0].Tasks) != 1 {
		t.Fatalf("%s: want one group of one task", *job.ID)
	}
	return job.TaskGroups[0].Tasks[0]
}

func TestBuiltins(t *testing.T) {
	kernels := map[string]string{"docker-linux": "linux", "raw-exec-macos": "darwin", "raw-exec-windows": "windows"}
	for name, job := range builtins(t) {
		t.Run(name, func(t *testing.T) {
			task := runner(t, job)
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
			if task.Meta["switchyard"] != "runner" {
				t.Errorf("task meta %v does not mark the runner", task.Meta)
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
			if len(task.Templates) != 1 {
				t.Fatalf("%d templates, want the start script alone", len(task.Templates))
			}
			script := *task.Templates[0].EmbeddedTmpl
			if strings.Contains(script, "${") || strings.Contains(script, "%{") || strings.Contains(script, "{{") {
				t.Error("HCL or Nomad's templates would change the start script")
			}
			if strings.ContainsFunc(script, func(r rune) bool { return r > '~' }) {
				t.Error("the start script is not ASCII; Windows PowerShell misreads it")
			}
			if !strings.Contains(script, "ACTIONS_RUNNER_INPUT_JITCONFIG") || strings.Contains(strings.ToLower(script), "--jitconfig") {
				t.Error("the configuration reaches the runner otherwise than by its environment")
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
			if _, ok := task.Env["RUNNER_ALLOW_RUNASROOT"]; ok || task.User == "root" {
				t.Error("the runner may be root")
			}

			attrs := map[string]string{} // of constraints, to what they ask
			for _, c := range job.Constraints {
				attrs[c.LTarget] = c.Operand + c.RTarget
			}
			want := map[string]string{"${attr.kernel.name}": "=" + kernels[name]}
			if task.Driver == "raw_exec" {
				want["${meta.switchyard_runner_dir}"] = "is_set"
				if task.Env["SWITCHYARD_RUNNER_DIR"] != "${meta.switchyard_runner_dir}" {
					t.Errorf("env %v does not say where the runner lies", task.Env)
				}
			}
			if diff := cmp.Diff(want, attrs); diff != "" {
				t.Errorf("constraints (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDockerLinuxIsolates(t *testing.T) {
	task := runner(t, builtins(t)["docker-linux"])
	allowed := []string{"entrypoint", "image", "image_pull_timeout", "pids_limit", "work_dir"}
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
	if len(task.VolumeMounts) > 0 || len(builtins(t)["docker-linux"].TaskGroups[0].Volumes) > 0 {
		t.Error("mounts volumes")
	}
}
