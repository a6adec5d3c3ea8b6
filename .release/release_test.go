package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestTheReleaseOfACommit releases the last commit from two folders, and then looks at what is
// in the release. With -short, it is for one platform.
func TestTheReleaseOfACommit(t *testing.T) {
	native := "linux/" + runtime.GOARCH
	all := targets
	if testing.Short() {
		all = []string{native}
	}
	out, clone := releaseOf(t, "..", all)
	again, second := releaseOf(t, clone, []string{native})
	mustBeTheSame(t, again, out, !testing.Short())

	commit, at, _ := strings.Cut(strings.TrimSpace(git(t, clone, "log", "-1", "--format=%H %cI")), " ")
	date, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	date = date.UTC()

	t.Run("changes that are not committed are no release", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(second, "new"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := release(second, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "not committed:\n?? new") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nothing is overwritten", func(t *testing.T) {
		if err := release(clone, out, nil); err == nil || !strings.Contains(err.Error(), "is not empty") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the files", func(t *testing.T) {
		var want []string
		for _, target := range all {
			goos, arch, _ := strings.Cut(target, "/")
			name, ending := "switchyard_1.2.3_"+goos+"_"+arch, ".tar.gz"
			if goos == "windows" {
				ending = ".zip"
			}
			want = append(want, name+ending, name+".cdx.json")
			if goos == "linux" {
				want = append(want, "switchyard_1.2.3_"+arch+".deb", "switchyard-1.2.3-1."+map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]+".rpm")
			}
		}
		want = append(want, "switchyard_1.2.3_image.tar", "checksums.txt")
		slices.Sort(want)
		if d := cmp.Diff(want, names(t, out)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		sums := map[string]string{}
		for line := range strings.Lines(string(read(t, out, "checksums.txt"))) {
			sum, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
			sums[name] = sum
		}
		for _, name := range want {
			if name != "checksums.txt" && sums[name] != fmt.Sprintf("%x", sha256.Sum256(read(t, out, name))) {
				t.Errorf("checksum of %s: %q", name, sums[name])
			}
		}
		if len(sums) != len(want)-1 {
			t.Errorf("%d checksums of %d files", len(sums), len(want)-1)
		}
	})
	for _, target := range all {
		goos, arch, _ := strings.Cut(target, "/")
		t.Run(target, func(t *testing.T) { testTarget(t, out, goos, arch) })
	}
	if runtime.GOOS != "linux" {
		return
	}
	t.Run("the program says what it is", func(t *testing.T) {
		program := filepath.Join(t.TempDir(), "switchyard")
		if err := os.WriteFile(program, archived(t, out, "linux", runtime.GOARCH)["switchyard"], 0o700); err != nil {
			t.Fatal(err)
		}
		said, err := exec.Command(program, "version", "--format", "json").Output()
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`{"version":"v1.2.3","commit":%q,"date":%q,"go":%q}`, commit, date.Format(time.RFC3339), runtime.Version())
		var compact bytes.Buffer
		if err := json.Compact(&compact, said); err != nil || strings.TrimSpace(compact.String()) != want {
			t.Errorf("version = %s, want %s; %v", said, want, err)
		}
	})
	t.Run("the packages", func(t *testing.T) { testPackages(t, out) })
	t.Run("the image", func(t *testing.T) { testImage(t, out, runtime.GOARCH, commit, date) })
}

// releaseOf releases the last commit of source, as version 1.2.3, from a folder of its own.
func releaseOf(t *testing.T, source string, targets []string) (out, clone string) {
	t.Helper()
	clone, out = filepath.Join(t.TempDir(), "clone"), filepath.Join(t.TempDir(), "dist")
	git(t, source, "clone", "--quiet", "--no-tags", ".", clone)
	git(t, clone, "tag", "v1.2.3")
	cmd := exec.Command("go", "run", ".", "-out", out, "-targets", strings.Join(targets, ","))
	cmd.Dir = filepath.Join(clone, ".release")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return out, clone
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	said, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return string(said)
}

// mustBeTheSame compares the files of a with those of b, byte for byte; b may have more platforms.
func mustBeTheSame(t *testing.T, a, b string, more bool) {
	t.Helper()
	for _, name := range names(t, a) {
		if more && (strings.HasSuffix(name, "_image.tar") || name == "checksums.txt") {
			continue // of all platforms
		}
		if !bytes.Equal(read(t, a, name), read(t, b, name)) {
			t.Errorf("%s differs between two builds of one commit", name)
		}
	}
	if more { // then the image's layers are what must be the same
		others := tarFiles(t, bytes.NewReader(read(t, b, "switchyard_1.2.3_image.tar")))
		for name, body := range tarFiles(t, bytes.NewReader(read(t, a, "switchyard_1.2.3_image.tar"))) {
			if strings.HasPrefix(name, "blobs/") && len(body) > 1<<14 && !bytes.Equal(body, others[name]) {
				t.Errorf("the image's %s differs between two builds of one commit", name)
			}
		}
	}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		list = append(list, f.Name())
	}
	return list
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tarFiles(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	eachFile(t, r, func(head *tar.Header, body []byte) { files[head.Name] = body })
	return files
}

// eachFile calls f for each file of a tar.
func eachFile(t *testing.T, r io.Reader, f func(*tar.Header, []byte)) {
	t.Helper()
	for r := tar.NewReader(r); ; {
		head, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		f(head, body)
	}
}

// archived returns the files of a platform's archive.
func archived(t *testing.T, out, goos, arch string) map[string][]byte {
	t.Helper()
	name := "switchyard_1.2.3_" + goos + "_" + arch
	if goos != "windows" {
		z, err := gzip.NewReader(bytes.NewReader(read(t, out, name+".tar.gz")))
		if err != nil {
			t.Fatal(err)
		}
		return tarFiles(t, z)
	}
	b := read(t, out, name+".zip")
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range z.File {
		if files[f.Name], err = fs.ReadFile(z, f.Name); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// testTarget tests the archive and the bill of materials of one platform.
func testTarget(t *testing.T, out, goos, arch string) {
	files := archived(t, out, goos, arch)
	program, want := "switchyard", []string{"LICENSES", "rules.example.yaml", "switchyard"}
	switch goos {
	case "windows":
		program, want = "switchyard.exe", []string{"LICENSES", "rules.example.yaml", "switchyard.exe"}
	case "darwin":
		want = append(want, "switchyard.plist")
	case "linux":
		want = append(want, "switchyard.env", "switchyard.service")
		bin, err := elf.NewFile(bytes.NewReader(files["switchyard"]))
		if err != nil {
			t.Fatal(err)
		}
		if libs, _ := bin.ImportedLibraries(); len(libs) > 0 || bin.Section(".interp") != nil {
			t.Errorf("the binary is not static: %v", libs)
		}
	}
	if d := cmp.Diff(want, slices.Sorted(maps.Keys(files))); d != "" {
		t.Errorf("the archive (-want +got):\n%s", d)
	}
	for _, text := range []string{"==== std ", "==== github.com/hashicorp/nomad/api ", "Mozilla Public License", "==== modernc.org/sqlite "} {
		if !strings.Contains(string(files["LICENSES"]), text) {
			t.Errorf("LICENSES lacks %q", text)
		}
	}
	if home, err := os.UserHomeDir(); err == nil && bytes.Contains(files[program], []byte(home+"/")) {
		t.Errorf("the binary names the folder %s", home)
	}

	raw := read(t, out, "switchyard_1.2.3_"+goos+"_"+arch+".cdx.json")
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema(t).Validate(value); err != nil {
		t.Errorf("the bill of materials is not valid: %v", err)
	}
	var bom cyclonedx.BOM
	if err := json.Unmarshal(raw, &bom); err != nil {
		t.Fatal(err)
	}
	if sum := (*bom.Metadata.Component.Hashes)[0].Value; sum != fmt.Sprintf("%x", sha256.Sum256(files[program])) {
		t.Errorf("it is of another binary: %s", sum)
	}
	for _, c := range *bom.Components {
		if c.Licenses == nil || len(*c.Licenses) == 0 || c.Version == "" {
			t.Errorf("it does not say the version or the license of %s", c.Name)
		}
	}
	if len(*bom.Components) < 50 || (*bom.Components)[0].Name != "std" {
		t.Errorf("it has %d components", len(*bom.Components))
	}
}

// schema returns CycloneDX's schema of version 1.6.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	for _, name := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schemax.json"} {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(read(t, strings.TrimSpace(string(dir)), "schema", name)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("http://cyclonedx.org/schema/"+strings.Replace(name, ".schemax.", ".schema.", 1), doc); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testPackages(t *testing.T, out string) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("needs dpkg-deb, of Debian's package dpkg")
	}
	deb := filepath.Join(out, "switchyard_1.2.3_"+runtime.GOARCH+".deb")
	dir := t.TempDir()
	if said, err := exec.Command("dpkg-deb", "--raw-extract", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		name, _ := filepath.Rel(dir, path)
		got[name] = info.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{
		"DEBIAN/control": "-rw-r--r--", "DEBIAN/conffiles": "-rw-r--r--", "DEBIAN/md5sums": "-rw-r--r--",
		"DEBIAN/postinst": "-rwxr-xr-x", "DEBIAN/prerm": "-rwxr-xr-x", "DEBIAN/postrm": "-rwxr-xr-x",
		"usr/bin/switchyard": "-rwxr-xr-x", "usr/lib/systemd/system/switchyard.service": "-rw-r--r--",
		"etc/switchyard/switchyard.env":     "-rw-------", // may hold NOMAD_TOKEN
		"usr/share/doc/switchyard/LICENSES": "-rw-r--r--", "usr/share/doc/switchyard/rules.example.yaml": "-rw-r--r--",
	}, got); d != "" {
		t.Errorf("the deb (-want +got):\n%s", d)
	}
	if conf := string(read(t, dir, "DEBIAN/conffiles")); conf != "/etc/switchyard/switchyard.env\n" {
		t.Errorf("conffiles = %q", conf)
	}
	if !bytes.Equal(read(t, dir, "usr/bin/switchyard"), archived(t, out, "linux", runtime.GOARCH)["switchyard"]) {
		t.Error("the deb has another binary than the archive")
	}
}
