package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/routertest"
	"switchyard/router/store/storetest"
	"switchyard/rules"
)

func TestRecentJobsAreRecords(t *testing.T) {
	st := storetest.Open(t, filepath.Join(t.TempDir(), "x.db"))
	defer st.Close()
	b := editedRules{nil, st}
	repo := router.Repo{Host: rules.DefaultHost, Owner: "acme", Name: "web", FullName: "acme/web", Private: true}
	_, err := b.Receive(t.Context(), router.Delivery{ID: "1", Action: "queued", Status: "queued", ReceivedAt: time.Now(), Job: router.Job{ID: 5, RunID: 7, Attempt: 1, Repo: repo, Labels: []string{"self-hosted"}}})
	must(t, err)
	n := 0
	for r, err := range b.Recent(t.Context(), time.Now().Add(-time.Hour), nil) {
		if n++; err != nil || r.ID != 5 || r.Repo.FullName != "acme/web" {
			t.Errorf("a record is %+v, %v", r, err)
		}
	}
	if n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

// BenchmarkImpact decides all jobs of a history by two files of rules that differ for some.
func BenchmarkImpact(b *testing.B) {
	src := "version: 1\nlabels: { self-hosted: {}, linux: {}, 'team-*': {}, 'cpu=*': {} }\nrules:\n"
	for team := range storetest.HistoryRules {
		src += fmt.Sprintf("  - { name: h%d, if: has(\"team-%[1]d\"), jobspec: docker-linux }\n", team)
	}
	src += "  - { name: rest, jobspec: docker-linux }\n"
	before, err := rules.Load(b.Context(), rules.File{Name: "rules.yaml", Source: []byte(src)})
	must(b, err)
	after, err := rules.Load(b.Context(), rules.File{Name: "rules.yaml", Source: []byte(strings.Replace(src, `has("team-3")`, `has("team-3") and job.branch == "main"`, 1))})
	must(b, err)
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("jobs=%d", n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "x.db")
			storetest.Create(b, path)
			storetest.History(b, path, n, 30*24*time.Hour, time.Now())
			st := storetest.Open(b, path)
			defer st.Close()
			for b.Loop() {
				c, err := rules.Compare(b.Context(), before, after, editedRules{nil, st}.Recent(b.Context(), time.Now().AddDate(0, 0, -31), nil))
				if err != nil || c.Jobs != n || c.Changed == 0 {
					b.Fatalf("%d jobs, %d change: %v", c.Jobs, c.Changed, err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/float64(n)*1e6, "µs/job")
		})
	}
}

// What the commands read of a directory are no links out of it either.
func TestCommandsFollowNoLinkOutOfTheRulesDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege there")
	}
	const secret = "ghp_secret"
	outside := t.TempDir()
	write(t, filepath.Join(outside, "token"), secret)
	write(t, filepath.Join(outside, "good.yaml"), denyAll("good"))
	for name, tc := range routertest.RulesLinks(outside) {
		command := "check"
		if strings.Contains(tc.Fault, ".test.") {
			command = "test"
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "rules")
			must(t, errors.Join(os.Mkdir(dir, 0o700), os.Symlink(outside, filepath.Join(dir, "..", "x"))))
			write(t, filepath.Join(dir, "10-base.yaml"), denyAll("first"))
			for name, to := range tc.Links {
				must(t, os.Symlink(to, filepath.Join(dir, name)))
			}
			want := filepath.Join(dir, tc.Fault) + ":1:1: a link that "
			var out, errs bytes.Buffer
			if code := run(t.Context(), []string{command, filepath.Join(dir, tc.Rules)}, nil, &out, &errs); code == 0 || !strings.Contains(errs.String(), want) || strings.Contains(errs.String(), secret) {
				t.Errorf("switchyard %s = %d: %s", command, code, errs.String())
			}
		})
	}
}
