package runners

import (
	"context"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/decide"
	"switchyard/rules"
)

// versionStore has what its rules' runners have.
type versionStore struct{ list []router.RuleVersion }

func (*versionStore) Unversioned(context.Context, string, []string, int) ([]router.Runner, error) {
	return nil, nil
}

func (*versionStore) SetRunnerVersion(context.Context, string, router.RunnerVersion) error {
	return nil
}

func (s *versionStore) RunnerVersions(context.Context) ([]router.RuleVersion, error) {
	return append([]router.RuleVersion{}, s.list...), nil
}

func (s *versionStore) SetRunnerVersions(_ context.Context, all []router.RuleVersion) error {
	s.list = all
	return nil
}

// versionHub counts how often it is asked.
type versionHub struct {
	router.GitHub
	asked int
}

func (h *versionHub) VersionEnd(context.Context, router.Target, router.RunnerVersion) (router.VersionEnd, error) {
	h.asked++
	return router.VersionEnd{}, nil
}

func TestAVersionOfSeveralRulesIsAskedAboutOnceADay(t *testing.T) {
	set, err := rules.Parse("rules.yaml", []byte("version: 1\nrules: [{ name: a, jobspec: docker-linux, if: has(\"x\") }, { name: b, jobspec: docker-linux }]\n"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	now := began
	clock := func() time.Time { return now }
	s, h := &versionStore{}, &versionHub{}
	for _, rule := range []string{"a", "b"} {
		s.list = append(s.list, router.RuleVersion{Rule: rule, Version: "2.336.0", Target: router.Target{Owner: "acme"}, Seen: now})
	}
	v := NewVersions(&Versions{Store: s, GitHub: h, Decider: decide.New(nil, clock, set, router.RulesVersion{}), Now: clock})
	for ; now.Before(began.Add(48 * time.Hour)); now = now.Add(time.Minute) {
		if err := v.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if h.asked != 2 || len(s.list) != 2 || s.list[0].Asked.IsZero() || s.list[1].Asked.IsZero() {
		t.Errorf("in two days GitHub was asked %d times about one version: %+v", h.asked, s.list)
	}
}
