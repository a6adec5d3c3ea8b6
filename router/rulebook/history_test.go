package rulebook

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/rules"
)

func TestALineOfAHistoryIsTakenOrNamed(t *testing.T) {
	const good = `{"labels": ["self-hosted"], "repo": {"full_name": "acme/web"}}`
	deep := strings.Repeat(`[`, 20_000) + strings.Repeat(`]`, 20_000)
	for _, tt := range []struct {
		name, src string
		jobs      int
		want      string // of the error
	}{
		{"nothing", "", 0, ""},
		{"empty lines", "\n\n" + good + "\n  \n" + good + "\n\n", 2, ""},
		{"line ends of Windows", good + "\r\n\r\n" + good + "\r\n", 2, ""},
		{"a byte order mark", "\ufeff" + good + "\n" + good, 2, ""},
		{"no line end at the end", good + "\n" + good, 2, ""},
		{"fields that are not known", `{"labels": [], "id": 7, "run_id": 1, "outcome": "routed", "more": {"x": [1]}}`, 1, ""},
		{"labels of 300 characters", `{"labels": ["` + strings.Repeat("ü", 300) + `"]}`, 1, ""},
		{"a run", `{"labels": [], "run": {"event": "push", "fork": false, "actor": "a"}}`, 1, ""},
		{"a line of a little under 1 MiB", `{"labels": [], "more": "` + strings.Repeat("x", 1<<20-100) + `"}`, 1, ""},

		{"a line of 10 MiB", good + "\n" + `{"labels": ["` + strings.Repeat("x", 10<<20) + `"]}`, 1, "h:2: the line is longer than 1 MiB: want one job per line"},
		{"no UTF-8", good + "\n\n{\"labels\": [\"\xff\"]}", 1, "h:3: the line is not UTF-8"},
		{"deep JSON", `{"labels": [], "more": ` + deep + "}", 0, "h:1: the line is not one JSON object: invalid character '[' exceeded max depth"},
		{"deep labels", `{"labels": ` + deep[:19_000] + deep[21_000:] + "}", 0, "h:1: "},
		{"no JSON", good + "\r\nlabels: []", 1, "h:2: the line is not one JSON object: invalid character 'l' looking for beginning of value"},
		{"half a line", `{"labels": [`, 0, "h:1: the line is not one JSON object: unexpected end of JSON input"},
		{"two jobs in a line", good + good, 0, "h:1: the line is not one JSON object: invalid character '{' after top-level value"},
		{"an array", "[" + good + "]", 0, "h:1: want a JSON object, not array"},
		{"null", "null", 0, "h:1: labels are missing"},
		{"no labels", `{"repo": {"full_name": "acme/web"}}`, 0, "h:1: labels are missing: want a job such as {"},
		{"labels that are a text", `{"labels": "linux"}`, 0, "h:1: labels cannot be a JSON string"},
		{"a label that is a number", `{"labels": [1]}`, 0, "h:1: labels cannot be a JSON number"},
		{"a name that is a number", `{"labels": [], "repo": {"name": 1}}`, 0, "h:1: repo.name cannot be a JSON number"},
		{"an id that is a text", `{"labels": [], "id": "7"}`, 0, "h:1: id cannot be a JSON string"},
		{"a terminal's escape", "{\"labels\": [], \"\x1b[31m", 0, `h:1: the line is not one JSON object: invalid character '\x1b' in string literal`},
		{"a binary", "\x00\x01\x02\n", 0, `h:1: the line is not one JSON object: invalid character '\x00' looking for beginning of value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			jobs, got := 0, ""
			for _, err := range Records(t.Context(), "h", strings.NewReader(tt.src)) {
				if err != nil {
					got = err.Error()
				} else if jobs++; got != "" {
					t.Error("it continues after an error")
				}
			}
			if jobs != tt.jobs || got != tt.want && !(tt.want != "" && strings.HasPrefix(got, tt.want)) {
				t.Errorf("%d jobs, error %q; want %d, %q", jobs, got, tt.jobs, tt.want)
			}
		})
	}
}

func TestARepositoryMayBeNamedInOneWay(t *testing.T) {
	for src, want := range map[string]rules.Repo{
		`{}`:                                 {},
		`{"full_name": "acme/web"}`:          {Owner: "acme", Name: "web", FullName: "acme/web"},
		`{"owner": "acme", "name": "web"}`:   {Owner: "acme", Name: "web", FullName: "acme/web"},
		`{"owner": "a", "full_name": "b/c"}`: {Owner: "a", FullName: "b/c"},
	} {
		r, err := readJob([]byte(`{"labels": [], "repo": ` + src + `}`))
		must(t, err)
		if diff := cmp.Diff(want, r.Repo); diff != "" {
			t.Errorf("%s (-want +got):\n%s", src, diff)
		}
	}
}

func TestReadingAHistoryEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for _, err := range Records(ctx, "h", strings.NewReader(strings.Repeat("{\"labels\": []}\n", 9))) {
		if n++; n == 3 {
			cancel()
		}
		if n > 3 && !errors.Is(err, context.Canceled) {
			t.Errorf("job %d: got %v", n, err)
		}
	}
	if n != 4 {
		t.Errorf("it ended after %d, want 4", n)
	}
}
