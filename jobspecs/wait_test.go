package jobspecs_test

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// waiting is a task of a warm runner whose claims are answered by answer, which is given how many
// there were before.
func waiting(t *testing.T, jobspec string, answer func(n int, rw http.ResponseWriter, r *http.Request)) task {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	n := atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, waits := r.URL.Query()["wait"]; !waits || r.Header.Get("Authorization") != "Bearer sesame" {
			t.Errorf("%s with %q is no claim that waits", r.URL, r.Header.Get("Authorization"))
		}
		answer(int(n.Add(1)-1), rw, r)
	}))
	t.Cleanup(s.Close)
	d := newTask(t, jobspec, new(""))
	d.meta = []string{"NOMAD_META_SWITCHYARD_WARM=true", "NOMAD_META_SWITCHYARD_CLAIM_URL=" + s.URL + "/runner/v1/claim"}
	return d
}

func TestAWarmRunnerWaitsAtTheClaim(t *testing.T) {
	t.Parallel()
	for _, jobspec := range []string{"docker-linux", "docker-linux-dind", "podman-linux", "raw-exec-macos"} {
		t.Run(jobspec, func(t *testing.T) {
			t.Parallel()
			t.Run("until a job takes it", func(t *testing.T) {
				d := waiting(t, jobspec, func(n int, rw http.ResponseWriter, _ *http.Request) {
					switch {
					case n < 3:
						http.Error(rw, "no job yet: ask again", http.StatusAccepted)
					default:
						_, _ = rw.Write([]byte("s3cret"))
					}
				})
				out, code := d.run(t)
				if code != 0 || !strings.Contains(out, "config=s3cret args=0 token= ") || strings.Count(out, "s3cret") != 1 || strings.Contains(out, "sesame") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
				for _, left := range []string{"runner.jit", "runner.jit.curl", "runner.jit.code"} {
					if exists(d.secrets, left) {
						t.Errorf("%s is left on disk", left)
					}
				}
			})
			t.Run("and is ready before", func(t *testing.T) {
				made, ready := make(chan task, 1), atomic.Bool{}
				d := waiting(t, jobspec, func(int, http.ResponseWriter, *http.Request) {
					d := <-made
					switch jobspec {
					case "raw-exec-macos":
						ready.Store(exists(d.local, "runner", "run.sh"))
					case "docker-linux-dind":
						ready.Store(exists(d.alloc, "docker.json"))
					default:
						ready.Store(true)
					}
				})
				made <- d
				if out, code := d.run(t); code != 0 || !ready.Load() {
					t.Errorf("exit code %d, and its files are there: %t; output:\n%s", code, ready.Load(), out)
				}
			})
			t.Run("unless a job had it before it was started", func(t *testing.T) {
				d := waiting(t, jobspec, func(int, http.ResponseWriter, *http.Request) { t.Error("it asks again") })
				put(t, filepath.Join(d.secrets, "runner.jit"), "s3cret", 0o600)
				if out, code := d.run(t); code != 0 || !strings.Contains(out, "config=s3cret args=0 token= ") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("until it is not needed any more", func(t *testing.T) {
				d := waiting(t, jobspec, func(int, http.ResponseWriter, *http.Request) {})
				if out, code := d.run(t); code != 0 || !strings.Contains(out, "no runner is needed any more\n") || strings.Contains(out, "config=") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("until it is refused", func(t *testing.T) {
				d := waiting(t, jobspec, func(_ int, rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusGone) })
				if out, code := d.run(t); code != 1 || !strings.Contains(out, "Switchyard refuses this runner: 410") {
					t.Errorf("exit code %d, output:\n%s", code, out)
				}
			})
			t.Run("until it is stopped", func(t *testing.T) {
				asked := make(chan struct{}, 1)
				d := waiting(t, jobspec, func(_ int, _ http.ResponseWriter, r *http.Request) {
					asked <- struct{}{}
					<-r.Context().Done()
				})
				cmd, out := d.start(t)
				<-asked
				interrupt(t, cmd)
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code != 0 || strings.Contains(text(t, out), "config=") || exists(d.local, "runner") {
					t.Errorf("exit code %d, output:\n%s", code, text(t, out))
				}
			})
		})
	}
}
