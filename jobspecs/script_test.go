package jobspecs_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeRunner is run.sh as far as signals and exit codes go, by its
// configuration: "wait" waits for a stop, "exit7" is too old.
const fakeRunner = `#!/bin/bash
echo "config=$ACTIONS_RUNNER_INPUT_JITCONFIG args=$# token=$NOMAD_META_SWITCHYARD_CLAIM_TOKEN pwd=$PWD"
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
	script, local, secrets, runnerDir string
	meta                              []string // beside registration by a configuration
}

// newTask has no file with a configuration when jit is nil.
func newTask(t *testing.T, jobspec string, jit *string) task {
	t.Helper()
	if _, err := exec.LookPath("/bin/bash"); err != nil {
		t.Skip("needs /bin/bash")
	}
	dir := filepath.Join(t.TempDir(), "a b") // paths have spaces somewhere
	d := task{filepath.Join(dir, "local", "start.sh"), filepath.Join(dir, "local"), filepath.Join(dir, "secrets"), filepath.Join(dir, "actions-runner"), nil}
	for _, sub := range []string{d.local, d.secrets, filepath.Join(d.runnerDir, "bin")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(d.runnerDir, "run.sh"), fakeRunner, 0o700)
	put(t, filepath.Join(d.runnerDir, "config.sh"), fakeConfig, 0o700)
	put(t, filepath.Join(d.runnerDir, ".hidden"), "", 0o600)
	put(t, d.script, *runner(t, builtins(t)[jobspec]).Templates[0].EmbeddedTmpl, 0o600)
	if jit != nil {
		put(t, filepath.Join(d.secrets, "runner.jit"), *jit, 0o600)
	}
	return d
}

func put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
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
	cmd.Env = append(os.Environ(), "NOMAD_TASK_DIR="+d.local, "NOMAD_SECRETS_DIR="+d.secrets,
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
	for _, jobspec := range []string{"docker-linux", "raw-exec-macos"} {
		t.Run(jobspec, func(t *testing.T) {
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
