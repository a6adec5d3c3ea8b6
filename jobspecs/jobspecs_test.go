package jobspecs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/jobspecs"
)

var builtinNames = []string{"docker-linux", "docker-linux-dind", "docker-windows", "podman-linux", "raw-exec-macos", "raw-exec-windows", "tart-macos"}

func TestLoad(t *testing.T) {
	t.Run("without a directory there are the built-in jobspecs, parsed", func(t *testing.T) {
		set := load(t, "")
		want := builtinNames
		if diff := cmp.Diff(want, set.Names()); diff != "" {
			t.Fatalf("Names (-want +got):\n%s", diff)
		}
		for _, name := range want {
			spec, ok := set.Get(name)
			if !ok || spec.Name != name || spec.Path != "built-in "+name+".nomad.hcl" || len(spec.Hash) != 64 || spec.Parsed == nil {
				t.Errorf("Get(%q): %v, path %q, hash %q, %d bytes parsed", name, ok, spec.Path, spec.Hash, len(spec.Parsed))
			}
		}
		if _, ok := set.Get("switchyard"); ok {
			t.Error("Switchyard's own job is a runner jobspec")
		}
	})

	t.Run("an operator's jobspecs are added, and replace built-ins of the same name", func(t *testing.T) {
		const job = `{"ID": "mine", "TaskGroups": [{"Name": "runner"}]}`
		dir := write(t, map[string]string{
			"docker-linux.nomad.hcl": `job "mine" {}`,
			"gpu.nomad.json":         `{"Job": ` + job + `}`,
			"bare.nomad.json":        job,
			"._gpu.nomad.json":       "\x00\x05\x16\x07",
			"README.md":              "not a jobspec",
			"x.parsed.json":          "nor this",
		})
		set := load(t, dir)
		if diff := cmp.Diff(slices.Sorted(slices.Values(append([]string{"bare", "gpu"}, builtinNames...))), set.Names()); diff != "" {
			t.Errorf("Names (-want +got):\n%s", diff)
		}
		mine, _ := set.Get("docker-linux")
		if string(mine.Source) != `job "mine" {}` || mine.Parsed != nil || mine.Path != filepath.Join(dir, "docker-linux.nomad.hcl") {
			t.Errorf("docker-linux is of %s, %d bytes parsed; want the operator's", mine.Path, len(mine.Parsed))
		}
		for _, name := range []string{"gpu", "bare"} {
			if spec, _ := set.Get(name); string(spec.Parsed) != job {
				t.Errorf("%s is parsed as %s, want %s", name, spec.Parsed, job)
			}
		}
	})

	t.Run("the same HCL has the same hash wherever it lies", func(t *testing.T) {
		builtin, _ := load(t, "").Get("docker-linux")
		copied, _ := load(t, write(t, map[string]string{"other.nomad.hcl": string(builtin.Source)})).Get("other")
		if copied.Hash != builtin.Hash {
			t.Errorf("hash %s, want %s", copied.Hash, builtin.Hash)
		}
	})

	faults := []struct {
		name  string
		files map[string]string
		want  []string // each begins a line of the error, after the directory
	}{
		{"every fault of every file is reported at its place", map[string]string{
			"a.nomad.hcl":  "job \"a\" {\n  type = \n  x y\n}\n",
			"b.nomad.hcl":  "job \"b\" {\n  x = \"ü\" y\n",
			"c.nomad.json": "{\n  \"ID\": \"ü\" 1\n}",
		}, []string{
			"a.nomad.hcl:2:10: Invalid expression",
			"a.nomad.hcl:3:6: Invalid block definition",
			"b.nomad.hcl:2:11: Missing newline after argument",
			"c.nomad.json:2:13: invalid character '1'",
		}},
		{"HCL without a job is no jobspec", map[string]string{"v.nomad.hcl": `variable "x" {}`}, []string{"v.nomad.hcl:1:1: no job block"}},
		{"an empty file is no jobspec", map[string]string{"e.nomad.hcl": "", "f.nomad.json": ""}, []string{"e.nomad.hcl:1:1: no job block", "f.nomad.json:1:1: unexpected end"}},
		{"binary junk is refused", map[string]string{"j.nomad.hcl": "\x00", "k.nomad.json": "\x00\xff\xfe"}, []string{
			"j.nomad.hcl:1:1: Invalid character", "j.nomad.hcl:1:1: Argument or block", "k.nomad.json:1:1: invalid character '\\x00'",
		}},
		{"JSON that is no job is refused", map[string]string{
			"a.nomad.json": `[]`, "b.nomad.json": `{"Job": null}`, "c.nomad.json": `{"rules": []}`, "d.nomad.json": `{"Job": {"TaskGroups": 1}}`, "e.nomad.json": `{"TaskGroups": [{}]} x`,
		}, []string{
			"a.nomad.json:1:1: a array, not a Nomad job", "b.nomad.json:1:1: no TaskGroups", "c.nomad.json:1:1: no TaskGroups",
			"d.nomad.json:1:1: no TaskGroups", "e.nomad.json:1:22: invalid character 'x'",
		}},
		{"two files of one name are refused", map[string]string{"a.nomad.hcl": `job "a" {}`, "a.nomad.json": `{"TaskGroups":[{}]}`}, []string{"a.nomad.json:1:1: jobspec a is also in "}},
		{"a huge file is refused", map[string]string{"a.nomad.hcl": `job "a" {}` + strings.Repeat("\n", 1<<20)}, []string{"a.nomad.hcl:1:1: larger than"}},
	}
	for _, test := range faults {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, test.files)
			_, err := jobspecs.Load(dir)
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(test.want) {
				t.Fatalf("faults:\n%s\nwant %d", strings.Join(got, "\n"), len(test.want))
			}
			for i, want := range test.want {
				if !strings.HasPrefix(got[i], dir+string(filepath.Separator)+want) {
					t.Errorf("fault %d: %s\nwant %s…", i, got[i], want)
				}
			}
		})
	}

	t.Run("a link that leads out of the directory is not read, one within it is", func(t *testing.T) {
		dir := write(t, map[string]string{".real": `job "mine" {}`})
		secret := filepath.Join(write(t, map[string]string{"token": "ghp_secret {"}), "token")
		for name, to := range map[string]string{"in.nomad.hcl": ".real", "out.nomad.hcl": secret, "out.nomad.json": secret} {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Skip(err) // Windows, without the privilege
			}
		}
		_, err := jobspecs.Load(dir)
		if want := filepath.Join(dir, "out.nomad.hcl") + ":1:1: a link that leads out"; err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "ghp_") {
			t.Errorf("Load = %v, want %s", err, want)
		}
		if err := errors.Join(os.Remove(filepath.Join(dir, "out.nomad.hcl")), os.Remove(filepath.Join(dir, "out.nomad.json"))); err != nil {
			t.Fatal(err)
		}
		if spec, ok := load(t, dir).Get("in"); !ok || string(spec.Source) != `job "mine" {}` {
			t.Errorf("in = %v, %v", spec, ok)
		}
	})

	t.Run("a directory that is not there, or holds no jobspec, is an error", func(t *testing.T) {
		if _, err := jobspecs.Load(filepath.Join(t.TempDir(), "absent")); err == nil {
			t.Error("a missing directory was accepted")
		}
		if _, err := jobspecs.Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no jobspec") {
			t.Errorf("an empty directory: %v", err)
		}
	})
}

func load(t *testing.T, dir string) *jobspecs.Set {
	t.Helper()
	set, err := jobspecs.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
