package cond

import (
	"slices"
	"strings"
	"testing"
)

// oneParam is a vocabulary of the label cpu=*, from 1 to 9.
type oneParam struct{}

var cpuParam = &Param{Name: "cpu", Kind: "int", Min: 1, Max: 9}

func (oneParam) All() []*Param { return []*Param{cpuParam} }

func (oneParam) Find(label string) (p *Param, open string, known bool) {
	if open, known = strings.CutPrefix(label, "cpu="); known {
		return cpuParam, open, true
	}
	return nil, "", false
}

func TestRulesAreFoundByWhatTheyNeed(t *testing.T) {
	for _, tt := range []struct {
		condition string
		want      string // the keys of which one is needed; "any" for none
	}{
		{`has("Linux", "gpu")`, "labels=linux"},
		{`"linux" in labels and not has("gpu")`, "labels=linux"},
		{`repo.full_name == "acme/web" and has("a")`, "repo.full_name=acme/web"},
		{`job.branch == "main"`, "job.branch=main"},
		{`not repo.private and job.branch startsWith "release/" and has("a")`, "labels=a"},
		{`repo.owner in ["a", "b"]`, "repo.owner=a repo.owner=b"},
		{`repo.owner != "a"`, "any"},
		{`not (repo.owner != "a" or has("b"))`, "repo.owner=a"},
		{`param.cpu > 1 and has("a")`, "any"}, // it may fail before the label is asked for
		{`run.fork and has("a")`, "any"},      // or ask for the run
		{`has("a") and param.cpu > 1 and has("b")`, "labels=a"},
		{`has("a") or has("b")`, "labels=a labels=b"},
		{`hasAny("a", "b")`, "labels=a labels=b"},
		{`has("a") or param.cpu > 1`, "any"},
		{`has("a", "x") or has("a", "y")`, "labels=a"},
		{`exactly("self-hosted", "a")`, "labels=self-hosted"},
		{`only("self-hosted", "a")`, "any"},
		{`has("a") or false`, "labels=a"},
		{`not hasAny("a", "b")`, "any"},
		{`false`, ""},
		{``, "any"},
	} {
		t.Run(tt.condition, func(t *testing.T) {
			var c Condition
			if tt.condition != "" {
				var err error
				if c, err = NewLanguage(oneParam{}, map[string]bool{}).Condition(tt.condition, true); err != nil {
					t.Fatal(err)
				}
			}
			index := NewIndex(1, func(int) *Node { return c.Root })
			var keys []string
			for k, rules := range index.keyed {
				if !slices.Equal(rules, []int32{0}) {
					t.Errorf("the key %v finds the rules %v", k, rules)
				}
				keys = append(keys, k.what+"="+k.is)
			}
			if len(index.unkeyed) > 0 {
				keys = append(keys, "any")
			}
			slices.Sort(keys)
			if got := strings.Join(keys, " "); got != tt.want {
				t.Errorf("found by %q, want %q", got, tt.want)
			}
		})
	}
}
