package store_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/store/storetest"
)

// crashEnv names the database of the child that TestKilledInABurst starts.
const crashEnv = "SWITCHYARD_STORETEST_CRASH_DB"

func TestKilledInABurst(t *testing.T) {
	t.Parallel()
	if path := os.Getenv(crashEnv); path != "" {
		burst(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "x.db")
	exe, err := os.Executable()
	must(t, err)
	from := int64(1)
	for round := range 3 {
		child := exec.CommandContext(t.Context(), exe, "-test.run=^TestKilledInABurst$")
		child.Env = append(os.Environ(), crashEnv+"="+path, fmt.Sprintf("%s_FROM=%d", crashEnv, from))
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		var stored []int64
		for lines := bufio.NewScanner(out); lines.Scan(); {
			id, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("the child says %q", lines.Text())
			}
			stored = append(stored, id)
		}
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		if len(stored) < 200 {
			t.Fatalf("the child stored %d jobs before it was killed, want at least 200", len(stored))
		}
		s := open(t, path)
		for _, id := range stored {
			if j, err := s.Job(t.Context(), id); err != nil || j.State != router.Queued {
				t.Errorf("round %d: job %d, whose Receive had returned, is lost: %v, %v", round, id, j.State, err)
			}
		}
		must(t, s.Close())
		from += 1 << 20
	}
}

// burst stores jobs from several goroutines, prints each ID when Receive has
// returned, and kills its own process in the middle of it.
func burst(t *testing.T, path string) {
	from, err := strconv.ParseInt(os.Getenv(crashEnv+"_FROM"), 10, 64)
	must(t, err)
	s, err := store.Open(t.Context(), path)
	must(t, err)
	var mu sync.Mutex
	said := 0
	var wg sync.WaitGroup
	for g := range int64(16) {
		wg.Go(func() {
			for i := range int64(10_000) {
				id := from + i*16 + g
				if _, err := s.Receive(t.Context(), storetest.NewDelivery(id, "queued", "queued")); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				fmt.Println(id) // to a pipe, unbuffered
				said++
				kill := said == 400
				mu.Unlock()
				if kill {
					self, err := os.FindProcess(os.Getpid())
					if err == nil {
						err = self.Kill()
					}
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}
