package nomad

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomadsim/nomadtest"
)

// A reload refuses rules for a verdict on a jobspec, and for nothing else.
func TestVerdictsOnAJobspec(t *testing.T) {
	const (
		validate = "PUT /v1/validate/job"
		parse    = "PUT /v1/jobs/parse"
	)
	for _, c := range []struct {
		name, jobspec string
		answers       nomadtest.Answers
		want          bool
	}{
		{"the file cannot be parsed", "broken", nomadtest.Answers{parse: "400 1 error occurred:\n\t* missing the resource block"}, true},
		{"no task is the runner", "unmarked", nil, true},
		{"it has two groups", "two-groups", nil, true},
		{"the job is invalid", "plain", nomadtest.Answers{validate: `200 {"Error":"1 error occurred:\n\t* Missing job datacenters\n\n"}`}, true},
		{"its pool does not exist", "plain", nomadtest.Answers{validate: `200 {"Error":"job \"x\" is in nonexistent node pool \"x\""}`}, true},
		{"the token may not parse", "broken", nomadtest.Answers{parse: "403 Permission denied"}, false},
		{"the token may not validate", "plain", nomadtest.Answers{validate: "403 Permission denied"}, false},
		{"Nomad is in trouble", "plain", nomadtest.Answers{validate: "500 No cluster leader"}, false},
		{"it is no Nomad", "plain", nomadtest.Answers{validate: "400 what?"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := answered(t, c.answers).Validate(t.Context(), c.jobspec)
			var verdict *router.JobspecError
			if err == nil || errors.As(err, &verdict) != c.want {
				t.Errorf("Validate = %v, a verdict: %v, want %v", err, !c.want, c.want)
			}
		})
	}
}

func TestValidateWith(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "new.nomad.json"), []byte(`{"ID":"x","TaskGroups":[{"Tasks":[{"Driver":"exec"}]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	specs, err := jobspecs.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	client := answered(t, nomadtest.Answers{"": "200 {}"})
	if _, err := client.ValidateWith(t.Context(), specs, "new"); err != nil {
		t.Errorf("the new jobspecs lack the new one: %v", err)
	}
	if _, err := client.Validate(t.Context(), "new"); err == nil {
		t.Error("the jobspecs in use have the new one")
	}
	if _, err := client.ValidateWith(t.Context(), specs, "plain"); err == nil {
		t.Error("the new jobspecs have an old one")
	}
}
