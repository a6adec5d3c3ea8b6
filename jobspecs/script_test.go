package jobspecs_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeRunner is run.sh as far as signals and exit codes go, by its
// configuration: "wait" waits for a stop, "exit7" is too old.
const fakeRunner = `#!/bin/bash
echo "config=$ACTIONS_RUNNER_INPUT_JITCONFIG args=$# token=$NOMAD_META_SWITCHYARD_CLAIM_TOKEN pwd=$PWD"
echo "hook=$ACTIONS_RUNNER_HOOK_JOB_STARTED own=$SWITCHYARD_JOB_STARTED"
echo "inputs=$(env | grep '^ACTIONS_RUNNER_INPUT_' | grep -vc JITCONFIG)"
ps -o args= -p $$ -p $PPID 2>/dev/null
touch written-by-job
case $ACTIONS_RUNNER_INPUT_JITCONFIG in
wait)
	set -m
	trap 'stopped=yes; kill -INT -$PID' INT TERM
	(trap 'echo cancelled; sleep 0.3; exit 1' INT; touch trapped; while :; do sleep 0.1; done) &
	PID=$!
	until [ -e trapped ]; do sleep 0.1; done
	echo waiting
	wait $PID
	code=$?
	trap - INT TERM
	wait $PID
	[ -z "$stopped" ] || exit 130
	exit $code
	;;
exit7) exit 7 ;;
esac
`

// fakeConfig is config.sh, by its token: "refused" is one that GitHub does not
// take, "slow" waits for the file go-on.
const fakeConfig = `#!/bin/bash
printf '<%s>' "$@"
env | grep '^ACTIONS_RUNNER_INPUT_' | sort
ps -o args= -p $$ -p $PPID 2>/dev/null
case $ACTIONS_RUNNER_INPUT_TOKEN in
refused) exit 1 ;;
slow)
	echo configuring
	until [ -e "$NOMAD_TASK_DIR/go-on" ]; do sleep 0.1; done
	;;
esac
echo configured
`

// task is a directory as Nomad lays it out for a runner task, without Nomad.
type task struct {
	script, local, secrets, alloc, runnerDir string
	meta                                     []string // beside registration by a configuration
}

// newTask has no file with a configuration when jit is nil.
func newTask(t *testing.T, jobspec string, jit *string) task {
	t.Helper()
	if _, err := exec.LookPath("/bin/bash"); err != nil {
		t.Skip("needs /bin/bash")
	}
	dir := filepath.Join(t.TempDir(), "a b") // paths have spaces somewhere
	d := task{filepath.Join(dir, "local", "start.sh"), filepath.Join(dir, "local"), filepath.Join(dir, "secrets"), filepath.Join(dir, "alloc"), filepath.Join(dir, "actions-runner"), nil}
	for _, sub := range []string{d.local, d.secrets, filepath.Join(d.alloc, "tmp"), filepath.Join(d.runnerDir, "bin"), filepath.Join(d.runnerDir, "externals", "node24")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(d.runnerDir, "run.sh"), fakeRunner, 0o700)
	put(t, filepath.Join(d.runnerDir, "config.sh"), fakeConfig, 0o700)
	put(t, filepath.Join(d.runnerDir, ".hidden"), "", 0o600)
	put(t, d.script, script(t, runner(t, builtins(t)[jobspec]), "local/start.sh"), 0o600)
	if jit != nil {
		put(t, filepath.Join(d.secrets, "runner.jit"), *jit, 0o600)
	}
	return d
}

func put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	// A child of a parallel test, forked now, would have the file open for writing: nobody can execute it then.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// start starts the task; its output goes to the file at out.
func (d task) start(t *testing.T) (cmd *exec.Cmd, out string) {
	t.Helper()
	out = filepath.Join(t.TempDir(), "out")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd = exec.Command("/bin/bash", d.script)
	cmd.Dir = d.runnerDir // the working directory of docker-linux; raw_exec has another, and does not use it
	cmd.Env = append(os.Environ(), "NOMAD_TASK_DIR="+d.local, "NOMAD_SECRETS_DIR="+d.secrets, "NOMAD_ALLOC_DIR="+d.alloc,
		"NOMAD_META_SWITCHYARD_CLAIM_TOKEN=sesame", "NOMAD_META_SWITCHYARD_REGISTRATION=jit", "SWITCHYARD_RUNNER_DIR="+d.runnerDir, "RUNNER_MANUALLY_TRAP_SIG=1")
	cmd.Env = append(cmd.Env, d.meta...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// run runs the task to its end.
func (d task) run(t *testing.T) (out string, code int) {
	t.Helper()
	cmd, file := d.start(t)
	_ = cmd.Wait() // the exit code tells
	return text(t, file), cmd.ProcessState.ExitCode()
}

// byToken is newTask for a runner that registers itself.
func byToken(t *testing.T, jobspec, claim string) task {
	t.Helper()
	d := newTask(t, jobspec, &claim)
	d.meta = []string{"NOMAD_META_SWITCHYARD_REGISTRATION=token", "NOMAD_META_RUNNER_URL=https://github.com/acme", "NOMAD_META_RUNNER_NAME=gha-1-1", "NOMAD_META_RUNNER_LABELS=self-hosted,a $(b) ' \""}
	return d
}

// waitFor waits for a text in the file at out.
func waitFor(t *testing.T, cmd *exec.Cmd, out, want string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); !strings.Contains(text(t, out), want); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			t.Fatalf("no %q comes:\n%s", want, text(t, out))
		}
	}
}

func interrupt(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(path ...string) bool {
	_, err := os.Lstat(filepath.Join(path...))
	return err == nil
}

func TestStartScripts(t *testing.T) {
	t.Parallel()
	for _, jobspec := range []string{"docker-linux", "docker-linux-dind", "podman-linux", "raw-exec-macos"} {
		t.Run(jobspec, func(t *testing.T) {
			t.Parallel()
			t.Run("a configuration reaches the runner by its environment only", func(t *testing.T) {
				d := newTask(t, jobspec, new("s3cret"))
				out, code := d.run(t)
				if code != 0 || !strings.Contains(out, "config=s3cret args=0 token= ") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
				if strings.Count(out, "s3cret") != 1 {
					t.Errorf("arguments show the configuration:\n%s", out)
				}
				if exists(d.secrets, "runner.jit") {
					t.Error("the configuration is left on disk")
				}
			})
			t.Run("an empty claim ends at once with exit code 0", func(t *testing.T) {
				d := newTask(t, jobspec, new(""))
				out, code := d.run(t)
				if code != 0 || out != "no runner is needed any more\n" || exists(d.local, "runner") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("a second start does not run the runner again", func(t *testing.T) {
				d := newTask(t, jobspec, new("s3cret"))
				d.run(t)
				out, code := d.run(t)
				if code != 1 || strings.Contains(out, "config=") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("by a token the runner configures itself, and starts without it", func(t *testing.T) {
				for claim, group := range map[string]string{"t0ken\n\n": "", "t0ken\nLarge machines\n": "ACTIONS_RUNNER_INPUT_RUNNERGROUP=Large machines\n", "t0ken": ""} {
					d := byToken(t, jobspec, claim)
					out, code := d.run(t)
					out = strings.Replace(out, "ACTIONS_RUNNER_INPUT_RUNNERGROUP=\n", "", 1) // as good as none to the runner
					want := "<--unattended><--ephemeral><--disableupdate><--no-default-labels><--replace>" +
						"ACTIONS_RUNNER_INPUT_LABELS=self-hosted,a $(b) ' \"\nACTIONS_RUNNER_INPUT_NAME=gha-1-1\n" + group +
						"ACTIONS_RUNNER_INPUT_TOKEN=t0ken\nACTIONS_RUNNER_INPUT_URL=https://github.com/acme\n"
					if code != 0 || !strings.HasPrefix(out, want) || !strings.Contains(out, "configured\nconfig= args=0 token= ") {
						t.Errorf("exit code %d, output:\n%s\nwant first:\n%s", code, out, want)
					}
					if strings.Count(out, "t0ken") != 1 || !strings.Contains(out, "inputs=0\n") {
						t.Errorf("arguments, or the environment of run.sh, show the token:\n%s", out)
					}
					if exists(d.secrets, "runner.jit") {
						t.Error("the token is left on disk")
					}
				}
			})
			t.Run("a token that is refused starts no runner", func(t *testing.T) {
				if out, code := byToken(t, jobspec, "refused").run(t); code != 1 || strings.Contains(out, "config=") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("an empty claim asks for no token", func(t *testing.T) {
				if out, code := byToken(t, jobspec, "").run(t); code != 0 || out != "no runner is needed any more\n" {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("a stop while it configures itself starts no runner", func(t *testing.T) {
				d := byToken(t, jobspec, "slow")
				cmd, out := d.start(t)
				waitFor(t, cmd, out, "configuring")
				interrupt(t, cmd)
				put(t, filepath.Join(d.local, "go-on"), "", 0o600)
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(text(t, out), "configured\n") || strings.Contains(text(t, out), "config=") {
					t.Errorf("exit code %d, output:\n%s", code, text(t, out))
				}
			})
			t.Run("a runner that verifies its job gets the hook, and one of the operator's comes after it", func(t *testing.T) {
				d := newTask(t, jobspec, new("s3cret"))
				d.meta = []string{"NOMAD_META_SWITCHYARD_VERIFY_TOKEN=v3rify", "ACTIONS_RUNNER_HOOK_JOB_STARTED=/own/hook.sh"}
				if out, code := d.run(t); code != 0 || !strings.Contains(out, "hook="+filepath.Join(d.local, "verify.sh")+" own=/own/hook.sh\n") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
				d = newTask(t, jobspec, new("s3cret"))
				d.meta = []string{"ACTIONS_RUNNER_HOOK_JOB_STARTED=/own/hook.sh"}
				if out, code := d.run(t); code != 0 || !strings.Contains(out, "hook=/own/hook.sh own=\n") {
					t.Errorf("without a token: exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("a runner that is kept stays until it is stopped, unless it failed", func(t *testing.T) {
				d := newTask(t, jobspec, new("s3cret"))
				d.meta = []string{"NOMAD_META_SWITCHYARD_KEEP=3600"}
				cmd, out := d.start(t)
				waitFor(t, cmd, out, "is kept for 3600 seconds")
				if !strings.Contains(text(t, out), "config=s3cret") {
					t.Errorf("it is kept before it ran:\n%s", text(t, out))
				}
				interrupt(t, cmd)
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != 0 {
					t.Errorf("exit code %d, output:\n%s", code, text(t, out))
				}
				d = newTask(t, jobspec, new("exit7"))
				d.meta = []string{"NOMAD_META_SWITCHYARD_KEEP=3600"}
				if out, code := d.run(t); code != 7 {
					t.Errorf("too old: exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("a stop of a runner that is to be kept lets the job end", func(t *testing.T) {
				d := newTask(t, jobspec, new("wait"))
				d.meta = []string{"NOMAD_META_SWITCHYARD_KEEP=3600"}
				cmd, out := d.start(t)
				waitFor(t, cmd, out, "waiting")
				interrupt(t, cmd)
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(text(t, out), "cancelled") {
					t.Errorf("exit code %d, output:\n%s", code, text(t, out))
				}
			})
			t.Run("the runner's exit code is kept", func(t *testing.T) {
				if out, code := newTask(t, jobspec, new("exit7")).run(t); code != 7 {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("a stop lets the job end", func(t *testing.T) {
				d := newTask(t, jobspec, new("wait"))
				cmd, out := d.start(t)
				waitFor(t, cmd, out, "waiting")
				interrupt(t, cmd)
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(text(t, out), "cancelled") {
					t.Errorf("exit code %d, output:\n%s", code, text(t, out))
				}
				if exists(d.local, "runner") {
					t.Error("the copy is left behind")
				}
			})
		})
	}

	t.Run("raw-exec-macos works in a copy, which it removes", func(t *testing.T) {
		d := newTask(t, "raw-exec-macos", new("s3cret"))
		if out, _ := d.run(t); !strings.Contains(out, "pwd="+filepath.Join(d.local, "runner")+"\n") {
			t.Errorf("output:\n%s", out)
		}
		if exists(d.local, "runner") || exists(d.runnerDir, "written-by-job") {
			t.Error("the copy is left behind, or the original was worked in")
		}
	})
	t.Run("raw-exec-macos fails when there is no runner to copy", func(t *testing.T) {
		d := newTask(t, "raw-exec-macos", new("s3cret"))
		if err := os.Remove(filepath.Join(d.runnerDir, "run.sh")); err != nil {
			t.Fatal(err)
		}
		if out, code := d.run(t); code == 0 {
			t.Errorf("exit code 0, output:\n%s", out)
		}
	})
}

// utf16 is how the runner's .NET assemblies have their text.
func utf16(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.Write([]byte{c, 0})
	}
	return b.String()
}

func TestACacheServerReplacesGitHubs(t *testing.T) {
	before, other := "\xff"+utf16("=ACTIONS_RESULTS_URL;ACTIONS_RUNTIME_URL")+"\n\xfe", utf16("=ACTIONS_RESULTS_ORL;ACTIONS_RUNTIME_URL")
	for _, jobspec := range []string{"docker-linux", "docker-linux-dind", "podman-linux"} {
		for _, env := range [][]string{nil, {"ACTIONS_RESULTS_URL=http://cache:3000/"}} {
			d := newTask(t, jobspec, new("s3cret"))
			d.meta = env
			dll := filepath.Join(d.runnerDir, "bin", "Runner.Worker.dll")
			put(t, dll, before, 0o600)
			want := before
			if env != nil {
				want = "\xff" + other + "\n\xfe"
			}
			if out, code := d.run(t); code != 0 || text(t, dll) != want {
				t.Errorf("%s with %v: exit code %d, %q, output:\n%s", jobspec, env, code, text(t, dll), out)
			}
		}
	}
}

func TestTheDaemonBesideARunner(t *testing.T) {
	const settings = `{"registry-mirrors": ["http://10.0.0.5:5000"]}`
	for mirror, want := range map[string]string{"": "{}\n", "http://10.0.0.5:5000": settings + "\n"} {
		d := newTask(t, "docker-linux-dind", new("s3cret"))
		put(t, filepath.Join(d.runnerDir, "externals", "node24", "node"), "", 0o700)
		if mirror != "" {
			d.meta = []string{"SWITCHYARD_REGISTRY_MIRROR=" + mirror}
		}
		if out, code := d.run(t); code != 0 || text(t, filepath.Join(d.alloc, "docker.json")) != want {
			t.Errorf("exit code %d, output:\n%s", code, out)
		}
		if !exists(d.alloc, "tmp", "node24", "node") {
			t.Error("the daemon does not see externals")
		}
	}
	d := newTask(t, "docker-linux-dind", new(""))
	if d.run(t); exists(d.alloc, "docker.json") {
		t.Error("a runner that is not needed starts the daemon")
	}

	// The daemon's own script, where the commands of its image are stand-ins.
	daemon := builtins(t)["docker-linux-dind"].TaskGroups[0].Tasks[0]
	dir := t.TempDir()
	put(t, filepath.Join(dir, "daemon.sh"), strings.ReplaceAll(script(t, daemon, "local/daemon.sh"), "/etc/", dir+"/"), 0o600)
	for _, name := range []string{"adduser", "chown", "su"} {
		put(t, filepath.Join(dir, name), "#!/bin/sh\necho "+name+" \"$@\"\n", 0o700)
	}
	cmd := exec.Command("/bin/sh", filepath.Join(dir, "daemon.sh"))
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "NOMAD_ALLOC_DIR="+d.alloc)
	out := filepath.Join(dir, "out")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, cmd, out, "chown -R runner:runner /home/rootless\n")
	if strings.Contains(text(t, out), "su ") {
		t.Error("the daemon starts before its settings are there")
	}
	put(t, filepath.Join(d.alloc, "docker.json"), "{}", 0o600)
	_ = cmd.Wait()
	want := "adduser -D -H -u 1001 -h /home/rootless runner\nchown -R runner:runner /home/rootless\n" +
		"su runner -c exec dockerd-entrypoint.sh dockerd --host=unix://" + d.alloc + "/docker.sock --group=root --config-file=" + d.alloc + "/docker.json\n"
	if got := text(t, out); got != want || text(t, filepath.Join(dir, "subuid")) != "runner:100000:65536\n" {
		t.Errorf("the daemon starts by\n%s, want\n%s", got, want)
	}
}

// TestTheHookBeforeTheFirstStep runs the hook as the child of a worker, which is the child of a runner.
func TestTheHookBeforeTheFirstStep(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"/bin/bash", "curl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs ", name)
		}
	}
	jobs := builtins(t)
	hook := script(t, runner(t, jobs["docker-linux"]), "local/verify.sh")
	for name, path := range map[string]string{"docker-linux-dind": "local/verify.sh", "podman-linux": "local/verify.sh", "raw-exec-macos": "local/verify.sh", "tart-macos": "secrets/verify.sh"} {
		if script(t, runner(t, jobs[name]), path) != hook {
			t.Errorf("the hook of %s is another than that of docker-linux", name)
		}
	}
	for _, test := range []struct {
		name    string
		answers []int // one after the other
		own     bool  // the operator has a hook
		want    string
	}{
		{name: "a job that the runner may serve goes on", answers: []int{200}, want: "the hook ended with 0\n"},
		{name: "the operator's hook comes after it", answers: []int{200}, own: true, want: "own hook\nthe hook ended with 3\n"},
		{name: "an answer that is not there yet is awaited", answers: []int{503, 502, 200}, want: "the hook ended with 0\n"},
		{name: "a job that it may not serve ends, and the runner with it", answers: []int{403}, want: "::error title=Switchyard::answer 403\nthe runner is stopped\n"},
		{name: "a token that was used does the same", answers: []int{410}, own: true, want: "::error title=Switchyard::answer 410\nthe runner is stopped\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				want := url.Values{"repository": {"acme/web"}, "run_id": {"7"}, "run_attempt": {"2"}}
				if err := req.ParseForm(); err != nil || req.Method != http.MethodPost || req.Header.Get("Authorization") != "Bearer v3rify" || !cmp.Equal(req.PostForm, want) {
					t.Errorf("the hook asks %s %v as %q", req.Method, req.PostForm, req.Header.Get("Authorization"))
				}
				status := test.answers[min(asked, len(test.answers)-1)]
				asked++
				http.Error(rw, "answer "+strconv.Itoa(status), status)
			}))
			defer server.Close()
			dir := t.TempDir()
			put(t, filepath.Join(dir, "verify.sh"), hook, 0o600)
			put(t, filepath.Join(dir, "own.sh"), "echo own hook\nexit 3\n", 0o600)
			put(t, filepath.Join(dir, "worker"), "bash -e \"$1/verify.sh\" & echo $! >\"$1/hook\"\nwait $!\nexit $?\n", 0o600)
			put(t, filepath.Join(dir, "runner"), "trap 'echo the runner is stopped; kill -KILL $worker $(cat \"$1/hook\") 2>/dev/null; exit 130' INT\nbash \"$1/worker\" \"$1\" & worker=$!\nwait $worker\necho the hook ended with $?\n", 0o600)
			out := filepath.Join(dir, "out")
			f, err := os.Create(out)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd := exec.Command("/bin/bash", filepath.Join(dir, "runner"), dir)
			cmd.Env = append(os.Environ(), "NOMAD_META_SWITCHYARD_VERIFY_URL="+server.URL+"/runner/v1/verify", "NOMAD_META_SWITCHYARD_VERIFY_TOKEN=v3rify",
				"GITHUB_REPOSITORY=acme/web", "GITHUB_RUN_ID=7", "GITHUB_RUN_ATTEMPT=2", "SWITCHYARD_JOB_STARTED=")
			if test.own {
				cmd.Env = append(cmd.Env, "SWITCHYARD_JOB_STARTED="+filepath.Join(dir, "own.sh"))
			}
			cmd.Stdout, cmd.Stderr = f, f // a file, as the hook's sleep outlives it
			if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if got := text(t, out); got != test.want {
				t.Errorf("output:\n%s\nwant:\n%s", got, test.want)
			}
			mu.Lock()
			defer mu.Unlock()
			if asked != len(test.answers) {
				t.Errorf("it asked %d times, want %d", asked, len(test.answers))
			}
		})
	}
}

// TestTartMacOS runs the start script as the agent in the machine does, where a directory stands in for
// what Tart shares with the machine: read-only, and without the task's environment.
func TestTartMacOS(t *testing.T) {
	task := runner(t, builtins(t)["tart-macos"])
	start := func(t *testing.T, claim, registration string, age time.Duration, more ...string) (out string, code int) {
		t.Helper()
		home := t.TempDir()
		shared := filepath.Join(home, "My Shared Files", "secrets")
		for _, sub := range []string{shared, filepath.Join(home, "actions-runner"), filepath.Join(home, "bin")} {
			if err := os.MkdirAll(sub, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		put(t, filepath.Join(shared, "start.sh"), script(t, task, "secrets/start.sh"), 0o600)
		put(t, filepath.Join(shared, "registration"), registration, 0o600)
		put(t, filepath.Join(shared, "verify.sh"), "the hook", 0o600)
		put(t, filepath.Join(shared, "warm"), "", 0o600)
		for i := 0; i < len(more); i += 2 {
			put(t, filepath.Join(shared, more[i]), more[i+1], 0o600)
		}
		put(t, filepath.Join(shared, "runner.jit"), claim, 0o600)
		at := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(shared, "runner.jit"), at, at); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(home, "actions-runner", "run.sh"), fakeRunner, 0o700)
		put(t, filepath.Join(home, "bin", "sudo"), "#!/bin/sh\necho \"sudo $*\"\n", 0o700)
		cmd := exec.Command("/bin/bash", filepath.Join(shared, "start.sh"))
		cmd.Env = []string{"HOME=" + home, "PATH=" + filepath.Join(home, "bin") + ":/usr/bin:/bin"}
		b, _ := cmd.CombinedOutput() // the exit code tells
		return string(b), cmd.ProcessState.ExitCode()
	}
	for file, key := range map[string]string{"registration": "REGISTRATION", "verify.url": "VERIFY_URL", "verify.token": "VERIFY_TOKEN", "keep": "KEEP", "warm": "WARM"} {
		if got := script(t, task, "secrets/"+file); got != "{{- env \"NOMAD_META_SWITCHYARD_"+key+"\" -}}\n" {
			t.Errorf("the machine has %s by %q", file, got)
		}
	}
	asked := atomic.Int64{}
	claims := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case r.URL.String() != "/runner/v1/claim?wait" || r.Header.Get("Authorization") != "Bearer sesame":
			t.Errorf("%s with %q is no claim that waits", r.URL, r.Header.Get("Authorization"))
		case n == 1:
			w.WriteHeader(http.StatusAccepted)
		default:
			_, _ = w.Write([]byte("s3cret"))
		}
	}))
	defer claims.Close()
	curl := strings.NewReplacer(`{{ env "NOMAD_META_SWITCHYARD_CLAIM_TOKEN" }}`, "sesame", `{{ env "NOMAD_META_SWITCHYARD_CLAIM_URL" }}`, claims.URL+"/runner/v1/claim").Replace(script(t, task, "secrets/claim.curl"))
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("without curl, a warm runner is not tried")
	} else if out, code := start(t, "", "jit", 0, "warm", "true", "claim.curl", curl); code != 0 || !strings.Contains(out, "config=s3cret args=0 token= ") || asked.Load() != 2 {
		t.Errorf("a warm runner: exit code %d after %d claims, output:\n%s", code, asked.Load(), out)
	}
	if out, code := start(t, "s3cret", "jit", 0, "verify.token", "v3rify", "verify.url", "http://yard/verify", "keep", "0"); code != 0 || !strings.Contains(out, "/verify.sh own=\n") || strings.Contains(out, "hook=/My Shared") {
		t.Errorf("with a hook: exit code %d, output:\n%s", code, out)
	}

	for _, test := range []struct {
		name, claim, registration string
		age                       time.Duration
		code                      int
		out                       string // what is in the output; the runner does not start unless it is its own
	}{
		{name: "the claim reaches the runner by its environment only", claim: "s3cret", registration: "jit", out: "config=s3cret args=0 token= "},
		{name: "an empty claim ends at once with exit code 0", registration: "jit", out: "no runner is needed any more\n"},
		{name: "a claim that was there before a crash starts no second runner", claim: "s3cret", registration: "jit", age: time.Hour, code: 1, out: "the claim is older than 15 minutes\n"},
		{name: "a registration token is refused", claim: "t0ken\n\n", registration: "token", code: 1, out: "registration: token is not for tart-macos"},
		{name: "the runner's exit code is kept", claim: "exit7", registration: "jit", code: 7, out: "config=exit7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, code := start(t, test.claim, test.registration, test.age)
			if code != test.code || !strings.Contains(out, test.out) {
				t.Errorf("exit code %d, want %d; output:\n%s", code, test.code, out)
			}
			if strings.Contains(out, "config=") != strings.Contains(test.out, "config=") || strings.Count(out, "s3cret") > 1 || strings.Contains(out, "t0ken") {
				t.Errorf("a runner starts, or arguments show its registration:\n%s", out)
			}
			if !strings.HasSuffix(out, "sudo -n shutdown -h now\n") {
				t.Errorf("the machine is not shut down in the end:\n%s", out)
			}
		})
	}
}
