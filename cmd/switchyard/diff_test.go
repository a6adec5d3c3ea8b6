package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router/store"
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
			readLines(t.Context(), "h", strings.NewReader(tt.src), func(_ rules.Record, err error) bool {
				if err != nil {
					got = err.Error()
				} else if jobs++; got != "" {
					t.Error("it goes on after an error")
				}
				return true
			})
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
		r, err := readRecord([]byte(`{"labels": [], "repo": ` + src + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, r.Repo); diff != "" {
			t.Errorf("%s (-want +got):\n%s", src, diff)
		}
	}
}

func TestReadingAHistoryEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for _, err := range readHistory(ctx, "-", strings.NewReader(strings.Repeat("{\"labels\": []}\n", 9))) {
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

// A server has the database open.
func TestTheDatabaseOfARunningServerIsCompared(t *testing.T) {
	db := filepath.Join(t.TempDir(), "x.db")
	if err := makeDatabase(db); err != nil {
		t.Fatal(err)
	}
	server, err := store.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var out, stderr bytes.Buffer
	example := "../../rules.example.yaml"
	if code := run(t.Context(), []string{"diff", example, example, "--history", db}, nil, &out, &stderr); code != exitYes || out.String() != "None of 3 recorded jobs changes.\n" {
		t.Errorf("exit code %d: %s%s", code, out.String(), stderr.String())
	}
}

func TestTheTextIsBounded(t *testing.T) {
	c := rules.Comparison{Jobs: 12345, Changed: 1205, Ungrouped: 2, Undecided: 1}
	for i := range 53 {
		c.Groups = append(c.Groups, rules.Group{Count: 2, Changes: []rules.Change{{Part: "node_pool", Old: strings.Repeat("\x1b", 300), New: fmt.Sprint(i)}}})
	}
	var text, github strings.Builder
	if err := errors.Join(writeComparison(&text, c), writeAnnotations(&github, new(rules.Set), "new.yaml", c)); err != nil {
		t.Fatal(err)
	}
	for want, n := range map[string]int{
		"1,205 of 12,345 recorded jobs change; for 1 the history lacks what a rule asks about the run.\n\n2 jobs:\n": 1,
		"\n2 jobs:\n":                                           50,
		strings.Repeat(`\x1b`, 200) + "… →":                     50,
		"\nAnd 6 jobs in 3 groups; --format json lists them.\n": 1,
		"\nAnd 2 jobs that change in other ways.\n":             1,
	} {
		if got := strings.Count(text.String(), want); got != n {
			t.Errorf("the text has %q %d times, want %d:\n%.900s", want, got, n, text.String())
		}
	}
	if got := strings.Count(github.String(), "\n::warning "); got != 10 || !strings.Contains(github.String(), "title=And 90 jobs::") {
		t.Errorf("%d annotations, want 10:\n%s", got, github.String())
	}
}

func TestTheSentenceAgreesWithItsNumbers(t *testing.T) {
	for _, tt := range []struct {
		c    rules.Comparison
		want string
	}{
		{rules.Comparison{Jobs: 1}, "None of 1 recorded job changes"},
		{rules.Comparison{Jobs: 1204}, "None of 1,204 recorded jobs changes"},
		{rules.Comparison{Jobs: 1, Changed: 1}, "1 of 1 recorded job changes"},
		{rules.Comparison{Jobs: 1_000_000, Changed: 1}, "1 of 1,000,000 recorded jobs changes"},
		{rules.Comparison{Jobs: 999, Changed: 3}, "3 of 999 recorded jobs change"},
	} {
		if got := sentence(tt.c); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestSinceIsReadAsATime(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"":                          {},
		"36h":                       now.Add(-36 * time.Hour),
		"1h30m":                     now.Add(-90 * time.Minute),
		"30d":                       now.AddDate(0, 0, -30),
		"2026-11-01":                time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		"2026-11-01T08:00:00+09:00": time.Date(2026, 10, 31, 23, 0, 0, 0, time.UTC),
	} {
		if got, err := timeFlag("since", s, now); err != nil || !got.Equal(want) {
			t.Errorf("timeFlag(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"yesterday", "-1h", "-3d", "d", "99999999d", "2026-13-01", "30"} {
		if got, err := timeFlag("since", s, now); err == nil {
			t.Errorf("timeFlag(%q) = %v, want an error", s, got)
		}
	}
}

// BenchmarkDiff is the whole command, with the example of rules against one
// that differs in a rule.
func BenchmarkDiff(b *testing.B) {
	const jobs = 100_000
	dir := b.TempDir()
	history, changed := filepath.Join(dir, "history.jsonl"), filepath.Join(dir, "new.yaml")
	var lines strings.Builder
	for i := range jobs {
		labels := []string{`"linux","x64"`, `"linux","gpu","cpu=8"`, `"linux","arm64","large"`, `"macos"`, `"linx"`}[i%5]
		fmt.Fprintf(&lines, `{"id":%d,"labels":["self-hosted",%s],"repo":{"owner":"acme","name":"service-%d","full_name":"acme/service-%d","private":true,"visibility":"private","fork":false},`+
			`"job":{"name":"build (linux, %d)","workflow":"CI","branch":"main","attempt":1,"sender":"octocat"},"run_id":%d,"received_at":"2026-11-24T00:00:00Z","outcome":"routed"}`+"\n", i, labels, i%300, i%300, i%9, i/4)
	}
	newRules := bytes.Replace(demoRules, []byte("raw-exec-macos"), []byte("raw-exec-windows"), 1)
	if err := errors.Join(os.WriteFile(history, []byte(lines.String()), 0o600), os.WriteFile(changed, newRules, 0o600)); err != nil {
		b.Fatal(err)
	}
	b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if code := run(b.Context(), []string{"diff", "../../rules.example.yaml", changed, "--history", history}, nil, io.Discard, os.Stderr); code != exitNo {
				b.Fatalf("exit code %d", code)
			}
		}
	})
}
