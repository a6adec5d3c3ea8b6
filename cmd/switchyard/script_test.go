package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/rules"
)

// The program itself is what scripts and crash tests run.
// hurried is the name of a program that waits for less time than switchyard.
const hurried = "switchyard-hurried"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil { // most of them wait
		panic(err)
	}
	testscript.Main(m, map[string]func(){"switchyard": main, hurried: func() {
		tune = func(c *server.Config) {
			c.Tick, c.Sweep, c.Doubt, c.Idle = time.Second, 5*time.Second, 4*time.Second, 8*time.Second
			c.Deliveries, c.Recheck, c.Feedback = 5*time.Second, 20*time.Second, time.Second
		}
		main()
	}})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	example, err := filepath.Abs("../../rules.example.yaml")
	must(t, err)
	sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
	t.Cleanup(sim.Close)
	fleet := httptest.NewServer(sim)
	t.Cleanup(fleet.Close)
	oldSim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet(), Release: "1.7.7"})
	t.Cleanup(oldSim.Close)
	old := httptest.NewServer(oldSim)
	t.Cleanup(old.Close)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("EXAMPLE", example)
			e.Setenv("CHECK_RULES", filepath.Join(filepath.Dir(example), ".github", "actions", "check-rules", "check-rules"))
			e.Setenv("FLEET", fleet.URL) // a simulated Nomad
			e.Setenv("OLD_FLEET", old.URL)
			e.Setenv("SCHEMA", filepath.Join(filepath.Dir(example), "rules", "rules.schema.json"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE PROGRAM ARG… wants the very exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				var exit *exec.ExitError
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
					got = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
			// server runs one, of which SWITCHYARD_SERVER is the address, and the file token has its token.
			"server": func(ts *testscript.TestScript, _ bool, _ []string) {
				url, w := operated(t, ts.Getenv("WORK"))
				ts.Defer(w.Stop)
				ts.Setenv("SWITCHYARD_SERVER", url)
				file := ts.MkAbs("token")
				ts.Check(os.WriteFile(file, []byte(operatorsToken+"\n"), 0o600))
			},
			// awaits CAUSE waits until the status names a cause; with ! in front, until it does not.
			"awaits": func(ts *testscript.TestScript, neg bool, args []string) {
				for range 600 {
					if err := ts.Exec("switchyard", "status", "--format", "json"); err != nil && !errors.As(err, new(*exec.ExitError)) {
						ts.Fatalf("%v", err)
					}
					if said := ts.ReadFile("stdout"); said != "" && strings.Contains(said, `"cause": "`+args[0]+`"`) != neg {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
				ts.Fatalf("the status stays\n%s", ts.ReadFile("stdout"))
			},
			// database FILE makes a server's database of three jobs, one of them decided.
			"database": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(makeDatabase(ts.MkAbs(args[0])))
			},
		},
		UpdateScripts: os.Getenv("UPDATE") != "",
	})
}

func makeDatabase(path string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, path, store.Unsynced)
	if err != nil {
		return err
	}
	received := time.Date(2025, 11, 23, 18, 0, 0, 0, time.UTC)
	for i, labels := range [][]string{{"self-hosted", "Linux"}, {"self-hosted", "linux", "gpu"}, {"ubuntu-latest"}} {
		d := router.Delivery{ID: strconv.Itoa(i), Action: "queued", Status: "queued", ReceivedAt: received.Add(time.Duration(i) * 12 * time.Hour)}
		d.Job = router.Job{ID: int64(4711 + i), RunID: 47, Attempt: 1, Name: "build <x>", Workflow: "CI", Branch: "main", Sender: "octocat", Labels: labels,
			Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private"}}
		if _, err := s.Receive(ctx, d); err != nil {
			return err
		}
	}
	d := router.Decision{Outcome: rules.Ignored, Reason: "out of scope"}
	err = s.Settle(ctx, 4713, router.Ignored, "", d.Reason, &d, received)
	return errors.Join(err, s.Close())
}

func TestTheDemoRulesAreTheExample(t *testing.T) {
	example, err := os.ReadFile("../../rules.example.yaml")
	must(t, err)
	if !bytes.Equal(demoRules, example) {
		t.Error("demo.rules.yaml differs from rules.example.yaml: run go generate ./cmd/switchyard")
	}
}

// serve's help is written by hand: it names every flag, and no other.
func TestTheHelpOfServeNamesItsFlags(t *testing.T) {
	named := regexp.MustCompile(`(?m)^  --([a-z-]+)`).FindAllStringSubmatch(serveHelp, -1)
	var got, want []string
	for _, m := range named {
		got = append(got, m[1])
	}
	serveCommand().Flags().VisitAll(func(f *pflag.Flag) { want = append(want, f.Name) })
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the help of serve (-flags +help):\n%s", diff)
	}
}

func TestEachHelpFitsAScreenAndEndsWithAnExample(t *testing.T) {
	for _, command := range []string{"", "serve", "check", "test", "explain", "diff", "rules", "rules status", "jobs", "jobs list", "jobs show", "jobs retry", "jobs cancel", "jobs sync", "jobs export", "runners", "runners list", "runners stop", "fleet", "usage", "simulate", "audit", "backup", "schema", "status", "ready", "demo", "version"} {
		var out, stderr bytes.Buffer
		code := run(t.Context(), append(strings.Fields(command), "--help"), nil, &out, &stderr)
		_, example, _ := strings.Cut(out.String(), "\nExample")
		if lines := strings.Count(out.String(), "\n"); code != exitYes || stderr.Len() > 0 || lines > 40 || !strings.Contains(example, "  switchyard "+command) || strings.Contains(example, "\n\n") {
			t.Errorf("the help of %q = %d, has %d lines, and ends with %q; %s", command, code, lines, example, stderr.String())
		}
	}
}
