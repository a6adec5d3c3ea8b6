package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The program itself is what scripts and crash tests run.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"switchyard": main})
}

func TestScripts(t *testing.T) {
	example, err := filepath.Abs("../../rules.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("EXAMPLE", example)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE PROGRAM ARG… wants the very exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				err = ts.Exec(args[1], args[2:]...)
				var exit *exec.ExitError
				if got := 0; err != nil && !errors.As(err, &exit) {
					ts.Fatalf("%v", err)
				} else if exit != nil {
					if got = exit.ExitCode(); got != want {
						ts.Fatalf("exit code %d, want %d", got, want)
					}
				} else if want != 0 {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
		},
		UpdateScripts: os.Getenv("UPDATE") != "",
	})
}

func TestTheDemoRulesAreTheExample(t *testing.T) {
	example, err := os.ReadFile("../../rules.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(demoRules, example) {
		t.Error("demo.rules.yaml differs from rules.example.yaml: run go generate ./cmd/switchyard")
	}
}
