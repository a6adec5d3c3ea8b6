package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"switchyard/router/nomad/capacity"
)

// history is what TestTheCommandsOfTheREADME compares rules by.
const history = `{"id": 4711, "labels": ["self-hosted", "linux"], "repo": {"full_name": "acme/web", "private": true}, "job": {"name": "build"}}
{"id": 4723, "labels": ["self-hosted", "linux", "arm64"], "repo": {"full_name": "acme/api", "private": true}, "job": {"name": "test"}}
{"id": 4738, "labels": ["ubuntu-latest"], "repo": {"full_name": "acme/web", "private": true}, "job": {"name": "lint"}}
`

// shownPages are the pages whose commands run.
var shownPages = []string{"README.md", "jobspecs/install.md", "cmd/switchyard/README.md"}

// Their rules files are good, and lint has nothing against them.
func TestTheRulesOfThePages(t *testing.T) {
	var src []byte
	for _, page := range shownPages {
		text, err := os.ReadFile(filepath.Join("../..", page))
		must(t, err)
		src = append(src, text...)
	}
	t.Chdir(t.TempDir())
	for i, block := range regexp.MustCompile("(?s)```yaml\n(version: 1\n.*?)```").FindAllSubmatch(src, -1) {
		name := strconv.Itoa(i) + ".yaml"
		write(t, name, string(block[1]))
		var printed bytes.Buffer
		if code := run(t.Context(), []string{"check", "--strict", name}, strings.NewReader(""), &printed, &printed); code != 0 {
			t.Errorf("exit code %d for\n%s\n%s", code, block[1], printed.String())
		}
	}
}

// The commands of the pages run, and print what stands below them. Those that
// want a server, or do not end by themselves, only have their flags read: other
// tests run them. UPDATE=1 rewrites the pages.
func TestTheCommandsOfThePages(t *testing.T) {
	root, err := filepath.Abs("../..")
	must(t, err)
	text := map[string]string{}
	for _, page := range shownPages {
		src, err := os.ReadFile(filepath.Join(root, page))
		must(t, err)
		text[page] = string(src)
	}
	t.Chdir(t.TempDir())
	_, own, _ := strings.Cut(text["README.md"], "```yaml\n")
	own, _, _ = strings.Cut(own, "```")
	for name, text := range map[string]string{
		"rules.yaml": own,
		"new.yaml":   strings.Replace(own, "memory: 4GiB", "memory: 8GiB", 1),
	} {
		write(t, name, text)
	}
	must(t, makeDatabase("switchyard.db"))
	ran := map[string]bool{}
	for _, page := range shownPages {
		want := runCommands(t, text[page], ran)
		if os.Getenv("UPDATE") != "" {
			must(t, os.WriteFile(filepath.Join(root, page), []byte(want), 0o644))
		} else if d := cmp.Diff(want, text[page]); d != "" {
			t.Errorf("%s is old; UPDATE=1 rewrites it (-want +is):\n%s", page, d)
		}
	}
	for _, name := range []string{"check", "test", "explain", "diff", "jobs", "rules", "schema", "serve", "demo"} {
		if !ran[name] {
			t.Errorf("no page shows switchyard %s", name)
		}
	}
}

// runCommands runs those of a page, notes which, and returns the page with what they print.
func runCommands(t *testing.T, page string, ran map[string]bool) string {
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```(\n\n```text\n.*?```)?")
	return blocks.ReplaceAllStringFunc(page, func(block string) string {
		m := blocks.FindStringSubmatch(block)
		var printed bytes.Buffer
		for line := range strings.Lines(strings.ReplaceAll(m[1], "\\\n", " ")) {
			command, comment, _ := strings.Cut(strings.TrimSpace(line), " # ")
			args, ok := strings.CutPrefix(command, "go run ./cmd/switchyard ")
			if !ok {
				args, ok = strings.CutPrefix(command, "switchyard ")
			}
			if !ok {
				continue
			}
			args, _, _ = strings.Cut(args, " > ")
			a := strings.Fields(args)
			ran[a[0]] = true
			if c := map[string]*cobra.Command{"serve": serveCommand(), "demo": demoCommand(), "rules": rulesStatusCommand(), "status": statusCommand(), "doctor": doctorCommand(), "init": initCommand(), "fleet": fleetCommand(), "simulate": simulateCommand()}[a[0]]; c != nil {
				if err := c.ParseFlags(a[1:]); err != nil {
					t.Errorf("%s: %v", command, err)
				}
				continue
			}
			code := 0
			if m := regexp.MustCompile(`^exit code (\d)`).FindStringSubmatch(comment); m != nil {
				code, _ = strconv.Atoi(m[1])
			}
			if got := run(t.Context(), a, strings.NewReader(""), &printed, &printed); got != code {
				t.Errorf("%s: exit code %d, want %d\n%s", command, got, code, printed.String())
			}
			if a[0] == "jobs" {
				write(t, "history.jsonl", history)
			}
		}
		if m[2] == "" {
			return block
		}
		return "```sh\n" + m[1] + "```\n\n```text\n" + printed.String() + "```"
	})
}

// A page that is moved or renamed leaves no link to nowhere.
func TestTheLinksOfThePagesLead(t *testing.T) {
	heads := map[string]map[string]bool{}
	text := map[string]string{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		src, err := os.ReadFile(path)
		text[path], heads[path] = string(src), map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(src, -1) {
			name := regexp.MustCompile(`[^\pL\pN_\- ]`).ReplaceAllString(strings.ToLower(string(m[1])), "")
			heads[path][strings.ReplaceAll(name, " ", "-")] = true
		}
		return err
	})
	if err != nil || len(text) < 10 {
		t.Fatalf("%d pages, %v", len(text), err)
	}
	for page, text := range text {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, ":") {
				continue
			}
			target := page
			if to != "" {
				target = filepath.Join(filepath.Dir(page), to)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
			} else if anchor != "" && filepath.Ext(target) == ".md" && !heads[target][anchor] {
				t.Errorf("%s: the link %s leads to no heading", page, m[1])
			}
		}
	}
}

// Prometheus is told where serve shows its metrics, Nomad Autoscaler to listen
// elsewhere than serve does (its own default is serve's), and CI what check calls
// a pool without nodes.
// The table of who decides what names functions that there are, in the package that it names.
func TestTheTableOfDecisionsIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../router/README.md")
	must(t, err)
	_, table, _ := strings.Cut(string(page), "## Where it is decided")
	table, _, _ = strings.Cut(table, "\n## ")
	named, source, file := regexp.MustCompile("`(\\w+)`|\\]\\(([a-z/.]+)\\)"), "", ""
	found := 0
	for _, m := range named.FindAllStringSubmatch(table, -1) {
		if m[2] != "" {
			file = filepath.Join("../../router", m[2])
			b, err := os.ReadFile(file)
			must(t, err)
			source = string(b)
			continue
		}
		if found++; !regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|var |\t)` + m[1] + `\b`).MatchString(source) {
			t.Errorf("%s has no %s", file, m[1])
		}
	}
	if found < 20 {
		t.Errorf("only %d names were found", found)
	}
}

func TestTheObservabilityPageKnowsTheCommands(t *testing.T) {
	page, err := os.ReadFile("../../router/observability/README.md")
	must(t, err)
	shown := func(pattern string) string {
		m := regexp.MustCompile(pattern).FindSubmatch(page)
		if m == nil {
			t.Fatalf("the page has no %s", pattern)
		}
		return string(m[1])
	}
	flags := serveCommand().Flags()
	listen, admin := flags.Lookup("listen").DefValue, flags.Lookup("admin-listen").DefValue
	if scraped := shown(`targets: \["(.*?)"\]`); scraped != admin {
		t.Errorf("Prometheus scrapes %s, and the metrics are at %s", scraped, admin)
	}
	port := ":" + shown(`bind_port = (\d+)`)
	if strings.HasSuffix(listen, port) || strings.HasSuffix(admin, port) {
		t.Errorf("Nomad Autoscaler listens on %s, which serve has", port)
	}
	args := strings.Fields(shown("`switchyard check (--strict .*?)`"))
	check := checkCommand()
	if err := check.ParseFlags(args); err != nil {
		t.Error(err)
	}
	if accept, _ := check.Flags().GetStringSlice("accept"); !slices.Equal(accept, []string{capacity.EmptyPool}) {
		t.Errorf("the page accepts %q, and a pool without nodes is %q", accept, capacity.EmptyPool)
	}
}
