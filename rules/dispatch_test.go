package rules

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestADispatchGivesMeta(t *testing.T) {
	const labels = "labels: { self-hosted: {}, linux: {}, 'cpu=*': { param: { name: cpu, type: int, min: 1, max: 8 } } }\n"
	facts := job("self-hosted", "linux", "cpu=4")
	facts.Repo.Host = ""
	s := parse(t, "version: 1\n"+labels+`rules:
  - name: classic
    dispatch:
      job: github_runner
      meta:
        REPO_URL: '${{ repo.url }}'
        LABELS: '${{ join(labels, ",") }}'
        CPU: '${{ param.cpu }}'
        PRIVATE: '${{ repo.private }}'
        BOTH: 'of ${{ repo.owner }}, ${{ job.attempt }}'
        FIXED: plain
        EMPTY: ''
        "A.b-c": '1'
`)
	d := s.Decide(facts, false)
	want := map[string]string{
		"REPO_URL": "https://github.com/acme/web", "LABELS": "self-hosted,linux,cpu=4", "CPU": "4", "PRIVATE": "true",
		"BOTH": "of acme, 1", "FIXED": "plain", "EMPTY": "", "A.b-c": "1",
	}
	if diff := cmp.Diff(want, d.DispatchMeta); d.Outcome != Routed || d.Dispatch != "github_runner" || diff != "" {
		t.Errorf("%s: %s (-want +got):\n%s", d.Outcome, d.Reason, diff)
	}
	if d.From["dispatch_meta.REPO_URL"] != "rule classic" {
		t.Errorf("from %v", d.From)
	}
	facts.Repo.Host = "ghe.example:8443"
	if got := s.Decide(facts, false).DispatchMeta["REPO_URL"]; got != "https://ghe.example:8443/acme/web" {
		t.Errorf("REPO_URL = %s", got)
	}

	short := parse(t, "version: 1\n"+labels+"rules: [{ name: classic, dispatch: github_runner }]\n").Decide(facts, false)
	if short.Dispatch != "github_runner" || short.DispatchMeta != nil {
		t.Errorf("the short form gives %s, %v", short.Dispatch, short.DispatchMeta)
	}
}

// What a stranger writes makes no interpolation, and what fails is said.
func TestADispatchWithoutAValueIsUnroutable(t *testing.T) {
	s := parse(t, `version: 1
labels: { self-hosted: {}, 'cpu=*': { param: { name: cpu, type: int, min: 1, max: 8 } } }
rules:
  - { name: a, if: job.name == "a", dispatch: { job: d, meta: { CPU: '${{ param.cpu }}' } } }
  - { name: b, dispatch: { job: d, meta: { BRANCH: '${{ job.branch }}' } } }
`)
	for _, tt := range []struct{ name, branch, want string }{
		{"a", "main", "dispatch_meta.CPU: ${{ param.cpu }} is nil"},
		{"b", "${env.VAULT_TOKEN}", "dispatch_meta.BRANCH"},
		{"b", "a\nb", "dispatch_meta.BRANCH"},
		{"b", strings.Repeat("x", 5000), "dispatch_meta.BRANCH"},
	} {
		f := job("self-hosted")
		f.Job.Name, f.Job.Branch = tt.name, tt.branch
		if d := s.Decide(f, false); d.Outcome != Unroutable || !strings.Contains(d.Reason, tt.want) || len(d.Reason) > 7000 {
			t.Errorf("%.20q: %s: %.200s; want unroutable, %s", tt.branch, d.Outcome, d.Reason, tt.want)
		}
	}
}

func TestFaultsOfADispatch(t *testing.T) {
	for _, tt := range []struct{ name, dispatch, want string }{
		{"no job", "{ meta: { A: b } }", "dispatch needs job"},
		{"an empty job", "{ job: '' }", "must not be empty"},
		{"a job from an expression", "{ job: '${{ repo.name }}' }", "must be written out"},
		{"a blank in it", "{ job: 'a b' }", "is not a valid ID of a Nomad job"},
		{"an unknown key", "{ job: a, metas: {} }", "did you mean meta?"},
		{"a list", "[a]", "dispatch"},
		{"a name that is not known", "{ job: a, meta: { A: '${{ repos.url }}' } }", "repos"},
		{"a field that is not known", "{ job: a, meta: { A: '${{ repo.link }}' } }", "link"},
		{"the run", "{ job: a, meta: { A: '${{ run.event }}' } }", "costs a call to GitHub"},
		{"an expression that is not closed", "{ job: a, meta: { A: '${{ repo.url' } }", "is not closed"},
		{"a list for a text", "{ job: a, meta: { A: '${{ labels }}' } }", "is a list: write join(labels"},
		{"a mapping for a text", "{ job: a, meta: { A: '${{ repo }}' } }", "is a mapping"},
		{"a value that is a list", "{ job: a, meta: { A: [b] } }", "must be a single value"},
		{"a key that is none", "{ job: a, meta: { 'A B': c } }", "is not a valid meta key of a Nomad job"},
		{"a key of the claim", "{ job: a, meta: { SWITCHYARD_CLAIM_TOKEN: c } }", "is made for each runner"},
		{"a key twice", "{ job: a, meta: { A: b, A: c } }", "A"},
		{"a value that is too long", "{ job: a, meta: { A: '" + strings.Repeat("x", 5000) + "' } }", "the maximum is 4096"},
		{"too many keys", "{ job: a, meta: { " + strings.Join(strings.Split(strings.Repeat("K%: v|", 60), "|"), ", ") + " } }", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dispatch := tt.dispatch
			for i := 0; strings.Contains(dispatch, "K%"); i++ {
				dispatch = strings.Replace(dispatch, "K%", "K"+string(rune('A'+i/26))+string(rune('A'+i%26)), 1)
			}
			dispatch = strings.Replace(dispatch, ",  }", " }", 1)
			_, err := Parse("rules.yaml", []byte("version: 1\nrules:\n  - name: a\n    dispatch: "+dispatch+"\n"))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "rules.yaml:4:") || len(err.Error()) > 6000 {
				t.Errorf("Parse = %.300v, want %s", err, tt.want)
			}
		})
	}
}
