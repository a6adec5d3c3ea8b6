package rules

import (
	"testing"

	"pgregory.net/rapid"
)

func TestLabelsAreReadAsPeopleTypeThem(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                     {},
		" ":                                    {},
		"self-hosted":                          {"self-hosted"},
		"self-hosted,linux":                    {"self-hosted", "linux"},
		" self-hosted ,  linux ":               {"self-hosted", "linux"},
		"self-hosted linux":                    {"self-hosted linux"}, // one label in a workflow, too
		"a,,b":                                 {"a", "", "b"},
		"a,":                                   {"a", ""},
		"[self-hosted, linux]":                 {"self-hosted", "linux"},
		"[ self-hosted, linux, ]":              {"self-hosted", "linux"},
		"[]":                                   {},
		`["self-hosted","linux"]`:              {"self-hosted", "linux"},
		`[ "self-hosted" , 'linux' ]`:          {"self-hosted", "linux"},
		"runs-on: [self-hosted, linux]":        {"self-hosted", "linux"},
		"runs-on: ubuntu-latest":               {"ubuntu-latest"},
		"runs-on:\n  - self-hosted\n  - linux": {"self-hosted", "linux"},
		"- self-hosted\n- linux\n":             {"self-hosted", "linux"},
		"- self-hosted - linux":                {"self-hosted", "linux"},
		"- 'self-hosted'\n- \"linux\"":         {"self-hosted", "linux"},
		"[\n  self-hosted,\n  linux\n]":        {"self-hosted", "linux"},
		"self-hosted\nlinux":                   {"self-hosted", "linux"},
		`"self-hosted, linux"`:                 {"self-hosted, linux"},
		`"self-hosted, linux",gpu`:             {"self-hosted, linux", "gpu"},
		`'it''s, this',b`:                      {"it's, this", "b"},
		`"[\"a\",\"b\"]"`:                      {`["a","b"]`},
		`"a`:                                   {`"a`},
		`"a,b`:                                 {`"a`, "b"},
		"yard=1/linux":                         {"yard=1/linux"},
	} {
		same(t, want, ParseLabels(text), "ParseLabels(%q)", text)
	}
}

func TestLabelsAreShownAsTheyAreRead(t *testing.T) {
	for _, tt := range []struct {
		labels []string
		want   string
	}{
		{nil, ""},
		{[]string{"self-hosted", "linux"}, "self-hosted, linux"},
		{[]string{"self-hosted, linux"}, `"self-hosted, linux"`},
		{[]string{"self-hosted linux"}, `"self-hosted linux"`},
		{[]string{`["self-hosted","linux"]`}, `"[\"self-hosted\",\"linux\"]"`},
		{[]string{"yard=1/linux", "cpu=8"}, "yard=1/linux, cpu=8"},
		{[]string{""}, `""`},
		{[]string{"a\u00a0b"}, `"a\u00a0b"`},
		{[]string{"café"}, "café"},
	} {
		if got := ShowLabels(tt.labels); got != tt.want {
			t.Errorf("ShowLabels(%q) = %s, want %s", tt.labels, got, tt.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		label := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune(" ,[]-\"'\\\n:ab"))))
		labels := rapid.SliceOf(label).Draw(t, "labels")
		shown := ShowLabels(labels)
		got := ParseLabels(shown)
		if len(labels) != len(got) {
			t.Fatalf("ParseLabels(%q) = %q, want %q", shown, got, labels)
		}
		for i := range labels {
			if got[i] != labels[i] {
				t.Fatalf("ParseLabels(%q) = %q, want %q", shown, got, labels)
			}
		}
	})
}
