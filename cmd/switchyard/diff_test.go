package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"switchyard/router/store"
	"switchyard/router/store/postgrestest"
	"switchyard/rules"
)

// A server has the database open.
func TestTheDatabaseOfARunningServerIsCompared(t *testing.T) {
	db := filepath.Join(t.TempDir(), "x.db")
	must(t, makeDatabase(db))
	server, err := store.Open(t.Context(), db)
	must(t, err)
	defer server.Close()
	var out, stderr bytes.Buffer
	example := "../../rules.example.yaml"
	if code := run(t.Context(), []string{"diff", example, example, "--history", db}, nil, &out, &stderr); code != exitYes || out.String() != "None of 3 recorded jobs changes.\n" {
		t.Errorf("exit code %d: %s%s", code, out.String(), stderr.String())
	}
}

// What a file has, the database in PostgreSQL that it was copied to has as well.
func TestTheCommandsReadADatabaseInPostgreSQL(t *testing.T) {
	url, db := postgrestest.URL(t), filepath.Join(t.TempDir(), "x.db")
	must(t, makeDatabase(db))
	command := func(args ...string) string {
		t.Helper()
		var out, stderr bytes.Buffer
		if code := run(t.Context(), args, nil, &out, &stderr); code != exitYes {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr.String())
		}
		return out.String()
	}
	command("db", "copy", "--from", db, "--to", url)
	example := "../../rules.example.yaml"
	for _, args := range [][]string{
		{"diff", example, example, "--history"}, {"jobs", "export", "--db"}, {"jobs", "list", "--format", "json", "--db"}, {"runners", "list", "--format", "json", "--db"},
	} {
		if want, got := command(append(args, db)...), command(append(args, url)...); want != got || want == "" {
			t.Errorf("%v says of PostgreSQL\n%s\nof the file\n%s", args, got, want)
		}
	}
	if got := command("db", "check", "--db", url); !strings.Contains(got, ": PostgreSQL ") || !strings.Contains(got, " 3 jobs, ") || strings.Contains(got, "wrong") {
		t.Errorf("check says %s", got)
	}
}

func TestTheTextIsBounded(t *testing.T) {
	c := rules.Comparison{Jobs: 12345, Changed: 1205, Ungrouped: 2, Undecided: 1}
	for i := range 53 {
		c.Groups = append(c.Groups, rules.Group{Count: 2, Changes: []rules.Change{{Part: "node_pool", Old: strings.Repeat("\x1b", 300), New: fmt.Sprint(i)}}})
	}
	var text, github strings.Builder
	must(t, errors.Join(writeComparison(&text, c), writeAnnotations(&github, new(rules.Set), "new.yaml", c)))
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
	must(b, errors.Join(os.WriteFile(history, []byte(lines.String()), 0o600), os.WriteFile(changed, newRules, 0o600)))
	b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if code := run(b.Context(), []string{"diff", "../../rules.example.yaml", changed, "--history", history}, nil, io.Discard, os.Stderr); code != exitNo {
				b.Fatalf("exit code %d", code)
			}
		}
	})
}
