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
ps -o args= -p $$ -p $PPID 2>/dev/null
touch written-by-job
case $ACTIONS_RUNNER_INPUT_JITCONFIG in
wait)
	set -m
	trap 'kill -INT -$PID' INT TERM
	(trap 'echo cancelled; sleep 0.3; exit 1' INT; echo waiting; while :; do sleep 0.1; done) &
	PID=$!
	wait $PID
	code=$?
	trap - INT TERM
	wait $PID
	exit $code
	;;
exit7) exit 7 ;;
esac
`

// task is a directory as Nomad lays it out for a runner task, without Nomad.
type task struct {
	script, local, secrets, runnerDir string
}

// newTask has no file with a configuration when jit is nil.
func newTask(t *testing.T, jobspec string, jit *string) task {
	t.Helper()
	if _, err := exec.LookPath("/bin/bash"); err != nil {
		t.Skip("needs /bin/bash")
	}
	dir := filepath.Join(t.TempDir(), "a b") // paths have spaces somewhere
	d := task{filepath.Join(dir, "local", "start.sh"), filepath.Join(dir, "local"), filepath.Join(dir, "secrets"), filepath.Join(dir, "actions-runner")}
	for _, sub := range []string{d.local, d.secrets, filepath.Join(d.runnerDir, "bin")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(d.runnerDir, "run.sh"), fakeRunner, 0o700)
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
		"NOMAD_META_SWITCHYARD_CLAIM_TOKEN=sesame", "SWITCHYARD_RUNNER_DIR="+d.runnerDir, "RUNNER_MANUALLY_TRAP_SIG=1")
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
			t.Run("the runner's exit code is kept", func(t *testing.T) {
				if out, code := newTask(t, jobspec, new("exit7")).run(t); code != 7 {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("a stop lets the job end", func(t *testing.T) {
				d := newTask(t, jobspec, new("wait"))
				cmd, out := d.start(t)
				for end := time.Now().Add(20 * time.Second); !strings.Contains(text(t, out), "waiting"); time.Sleep(20 * time.Millisecond) {
					if time.Now().After(end) {
						_ = cmd.Process.Kill()
						t.Fatalf("the runner does not start:\n%s", text(t, out))
					}
				}
				if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
					t.Fatal(err)
				}
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
