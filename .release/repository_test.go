package main

import (
	"encoding/json"
	"encoding/xml"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A tag of an action can be moved to other code; a commit cannot.
func TestActionsArePinned(t *testing.T) {
	uses := regexp.MustCompile(`(?m)^\s*(?:- )?uses: *(\S+)(.*)$`)
	pinned := regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)
	found := 0
	err := filepath.WalkDir("../.github", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") && !strings.HasSuffix(path, ".yaml") {
			return err
		}
		for _, m := range uses.FindAllSubmatch(read(t, path), -1) {
			found++
			action, version := string(m[1]), strings.TrimSpace(string(m[2]))
			if !strings.HasPrefix(action, "./") && !strings.HasPrefix(action, "$/") && !(pinned.MatchString(action) && strings.HasPrefix(version, "# v")) {
				t.Errorf("%s uses %s %s: want the digest of a commit, and its version as a comment", path, action, version)
			}
		}
		return nil
	})
	if err != nil || found < 5 {
		t.Errorf("%d uses of actions; %v", found, err)
	}
}

// Each dependency that we chose is on the page, with a reason, and no other.
func TestThePageOfDependenciesIsComplete(t *testing.T) {
	listed := func(heading string) (list []string) {
		_, section, _ := strings.Cut(string(read(t, "../.github/dependencies.md")), "\n## "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| \\S.* \\|$").FindAllStringSubmatch(section, -1) {
			list = append(list, m[1])
		}
		slices.Sort(list)
		return list
	}
	for heading, file := range map[string]string{"In the program and its tests": "../go.mod", "In what makes a release": "go.mod"} {
		out, err := exec.Command("go", "mod", "edit", "-json", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		var mod struct {
			Require []struct {
				Path     string
				Indirect bool
			}
			Tool []struct{ Path string }
		}
		if err := json.Unmarshal(out, &mod); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, r := range mod.Require {
			if !r.Indirect {
				want = append(want, r.Path)
			}
		}
		for _, tool := range mod.Tool {
			want = append(want, tool.Path)
		}
		slices.Sort(want)
		if d := cmp.Diff(want, listed(heading)); d != "" {
			t.Errorf("%s (-%s +page):\n%s", heading, file, d)
		}
	}
	var npm struct {
		Dependencies, DevDependencies map[string]string
	}
	if err := json.Unmarshal(read(t, "../router/web/editor/package.json"), &npm); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range []map[string]string{npm.Dependencies, npm.DevDependencies} {
		for name := range m {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if d := cmp.Diff(want, listed("In the rules editor")); d != "" {
		t.Errorf("the rules editor (-package.json +page):\n%s", d)
	}
}

// The services set what serve takes.
func TestTheServicesUseKnownSettings(t *testing.T) {
	flags := string(read(t, "../cmd/switchyard/serve.go"))
	for _, file := range []string{"switchyard.service", "switchyard.env", "switchyard.plist"} {
		names := regexp.MustCompile(`SWITCHYARD_([A-Z_]+)`).FindAllSubmatch(read(t, "files", file), -1)
		if len(names) == 0 {
			t.Errorf("%s sets nothing", file)
		}
		for _, m := range names {
			if flag := strings.ToLower(strings.ReplaceAll(string(m[1]), "_", "-")); !strings.Contains(flags, `"`+flag+`"`) {
				t.Errorf("%s sets --%s, which serve does not have", file, flag)
			}
		}
	}
	if err := xml.Unmarshal(read(t, "files/switchyard.plist"), new(struct{})); err != nil {
		t.Errorf("the plist: %v", err)
	}
}

func TestTheUnitIsValidAndHardened(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze, of Debian's package systemd")
	}
	unit := filepath.Join(t.TempDir(), "switchyard.service")
	text := strings.Replace(string(read(t, "files/switchyard.service")), "ExecStart=/usr/bin/switchyard", "ExecStart=/bin/true", 1) // it is not installed
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("%v\n%s", err, said)
	}
	if said, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", unit).CombinedOutput(); err != nil {
		t.Errorf("its exposure is above 1.5: %v\n%s", err, said)
	}
}
