package rules

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
	"switchyard/rules/internal/yamlfile"
)

const (
	maxMetaKeys = 50
	maxMetaText = 4096 // bytes of a value; Nomad would take megabytes, but it ends up in the environment of a task
)

var (
	metaKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,127}$`)

	// claimKeys are Switchyard's alone: their values are made for each runner.
	claimKeys = map[string]bool{"SWITCHYARD_CLAIM_URL": true, "SWITCHYARD_CLAIM_TOKEN": true}
)

// dispatch reads the parameterized job of a rule: its ID, or a mapping with the
// meta that it takes besides.
func (r *loader) dispatch(n ast.Node, ru *rule) {
	job := n
	if _, short := yamlfile.Scalar(n); !short {
		f := r.Fields(n, "dispatch", "job", "meta")
		if f == nil {
			return
		}
		ru.dispatch = "?" // so that what is left out is the one fault
		if job = f["job"]; job == nil {
			r.Fault(n, "dispatch needs job, the ID of a parameterized Nomad job: { job: github_runner, meta: { REPO_URL: '${{ repo.url }}' } }")
		}
		if f["meta"] != nil {
			ru.meta = r.dispatchMeta(f["meta"])
		}
	}
	if job == nil {
		return
	}
	ru.dispatch = literal(r, job, "dispatch", func(v any) (string, error) {
		s, err := cond.AsText(v)
		if err == nil && (strings.ContainsAny(s, " \x00") || len(s) > 300 || !words.Printable(s)) {
			err = fmt.Errorf("%s is not a valid ID of a Nomad job", words.Quote(s))
		}
		return s, err
	}).literal
}

func (r *loader) dispatchMeta(n ast.Node) (meta []envSpec) {
	pairs := r.Pairs(n, "dispatch meta")
	if len(pairs) > maxMetaKeys {
		r.Fault(n, "dispatch meta has %d keys; the maximum is %d", len(pairs), maxMetaKeys)
		return nil
	}
	for _, p := range pairs {
		what := "dispatch meta " + p.Key
		switch {
		case !metaKey.MatchString(p.Key):
			r.Fault(p.KeyNode, "%s is not a valid meta key of a Nomad job: write letters, digits and _.-", words.Quote(p.Key))
			continue
		case claimKeys[p.Key]:
			r.Fault(p.KeyNode, "%s is made for each runner: declare it in the Nomad job, and leave it out here", p.Key)
			continue
		}
		v := readText(r, p.Value, what, metaText, true)
		if v.template != nil {
			if kind := v.template.Kind(); kind != "" {
				r.Fault(p.Value, "%s must be a text, and %s is a %s: write join(labels, \",\") for a list", what, words.OneLine(v.template.Source), kind)
				continue
			}
		}
		if v.set {
			meta = append(meta, envSpec{p.Key, v})
		}
	}
	return meta
}

// metaText reads a value of meta.
func metaText(v any) (string, error) {
	s, err := cond.AsText(v)
	if err == nil && len(s) > maxMetaText {
		err = fmt.Errorf("it has %d bytes; the maximum is %d", len(s), maxMetaText)
	}
	if err == nil && !words.Printable(s) {
		err = fmt.Errorf("%s is not one line of printable text", words.Quote(s))
	}
	return s, err
}
