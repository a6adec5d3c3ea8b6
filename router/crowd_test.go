package router_test

import (
	"strings"
	"testing"

	"switchyard/router"
)

func TestAKindIsTheSameFromRunToRun(t *testing.T) {
	job := func(run int64, attempt int, name string, labels ...string) router.Job {
		return router.Job{RunID: run, Attempt: attempt, Name: name, Workflow: "CI", Labels: labels, Repo: router.Repo{Owner: "acme", Name: "web"}}
	}
	first := job(15368610000, 1, "test (linux, 1)", "yard=15368610000/linux", "Self-Hosted")
	for _, tt := range []struct {
		name        string
		job         router.Job
		kind, crowd bool // the same as that of first
	}{
		{"a sibling", job(15368610000, 1, "test (linux, 2)", "self-hosted", "yard=15368610000/linux"), true, true},
		{"another attempt", job(15368610000, 2, "test (linux, 1)", "self-hosted", "yard=15368610000/linux"), true, false},
		{"another run", job(15368610001, 1, "test (linux, 1)", "self-hosted", "yard=15368610001/linux"), true, false},
		{"another name", job(15368610000, 1, "tests (linux, 1)", "self-hosted", "yard=15368610000/linux"), false, false},
		{"a name without values", job(15368610000, 1, "test", "self-hosted", "yard=15368610000/linux"), true, false},
		{"other labels", job(15368610000, 1, "test (linux, 2)", "self-hosted", "yard=15368610000/mac"), false, false},
	} {
		if same := tt.job.Kind() == first.Kind(); same != tt.kind {
			t.Errorf("%s: is of the same kind: %t", tt.name, same)
		}
		if same := tt.job.Crowd() == first.Crowd(); same != tt.crowd {
			t.Errorf("%s: is of the same crowd: %t", tt.name, same)
		}
	}
	if a, b := job(7, 1, "a"), job(7, 1, "b"); a.Crowd() != b.Crowd() || a.Kind() == b.Kind() {
		t.Error("jobs with names of their own are not of one crowd, or are of one kind")
	}
	if !first.Matrix() || job(7, 1, "test").Matrix() {
		t.Error("a matrix is not told by the names of its jobs")
	}
	if first.Kind() != router.KindOf(first.Crowd()) || strings.Contains(router.KindOf(first.Crowd()), "-") {
		t.Errorf("the kind of %s is %s, not %s", first.Crowd(), router.KindOf(first.Crowd()), first.Kind())
	}
}
