package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
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

	head := strings.Fields(git(t, clone, "log", "-1", "--format=%H %ct"))
	var date time.Time
	if d, err := time.Parse(time.RFC3339, strings.TrimSpace(git(t, clone, "log", "-1", "--format=%cI"))); err != nil {
		t.Fatal(err)
	} else {
		date = d.UTC()
	}

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
		want := fmt.Sprintf(`{"version":"v1.2.3","commit":%q,"date":%q,"go":%q}`, head[0], date.Format(time.RFC3339), runtime.Version())
		var compact bytes.Buffer
		if err := json.Compact(&compact, said); err != nil || strings.TrimSpace(compact.String()) != want {
			t.Errorf("version = %s, want %s; %v", said, want, err)
		}
	})
	t.Run("the packages", func(t *testing.T) { testPackages(t, out) })
	t.Run("the image", func(t *testing.T) { testImage(t, out, runtime.GOARCH, head[0], date) })
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
		for name, body := range tarFiles(t, bytes.NewReader(read(t, a, "switchyard_1.2.3_image.tar"))) {
			if other := tarFiles(t, bytes.NewReader(read(t, b, "switchyard_1.2.3_image.tar")))[name]; strings.HasPrefix(name, "blobs/") && len(body) > 1<<14 && !bytes.Equal(body, other) {
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
	for r := tar.NewReader(r); ; {
		head, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[head.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
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
	var got []string
	for name := range files {
		got = append(got, name)
	}
	slices.Sort(got)
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
	if d := cmp.Diff(want, got); d != "" {
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
		t.Skip("there is no dpkg-deb")
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

// An unpacked is the image of one platform, as its layers leave it.
type unpacked struct {
	config imageConfig
	files  map[string]*tar.Header
	bodies map[string][]byte
	size   int // compressed
}

func unpack(t *testing.T, out, arch string) (u unpacked) {
	t.Helper()
	blobs := tarFiles(t, bytes.NewReader(read(t, out, "switchyard_1.2.3_image.tar")))
	blob := func(d descriptor) []byte {
		sum := strings.TrimPrefix(d.Digest, "sha256:")
		body := blobs["blobs/sha256/"+sum]
		if len(body) != d.Size || sum != fmt.Sprintf("%x", sha256.Sum256(body)) {
			t.Fatalf("%+v describes another blob", d)
		}
		return body
	}
	decode := func(body []byte, v any) {
		t.Helper()
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			t.Fatal(err)
		}
	}
	var entry, all index
	decode(blobs["index.json"], &entry)
	if name := entry.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; name != "1.2.3" {
		t.Errorf("the image is called %q", name)
	}
	decode(blob(entry.Manifests[0]), &all)
	i := slices.IndexFunc(all.Manifests, func(d descriptor) bool { return *d.Platform == platform{OS: "linux", Architecture: arch} })
	if i < 0 {
		t.Fatalf("the image is for %+v", all.Manifests)
	}
	var m manifest
	decode(blob(all.Manifests[i]), &m)
	decode(blob(m.Config), &u.config)
	u.files, u.bodies = map[string]*tar.Header{}, map[string][]byte{}
	for n, layer := range m.Layers {
		u.size += layer.Size
		z, err := gzip.NewReader(bytes.NewReader(blob(layer)))
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); sum != u.config.RootFS.DiffIDs[n] {
			t.Errorf("layer %d is %s, and the configuration says %s", n, sum, u.config.RootFS.DiffIDs[n])
		}
		for r := tar.NewReader(bytes.NewReader(content)); ; {
			head, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			u.files[head.Name] = head
			if u.bodies[head.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	return u
}

func testImage(t *testing.T, out, arch, commit string, date time.Time) {
	u := unpack(t, out, arch)
	t.Logf("the image of linux/%s has %.1f MB in its layers", arch, float64(u.size)/1e6)
	if u.size > 25_000_000 {
		t.Errorf("the image has %d bytes", u.size)
	}
	got := map[string]string{}
	for name, head := range u.files {
		got[name] = fmt.Sprintf("%s %d", head.FileInfo().Mode(), head.Uid)
		if head.Uid != head.Gid || !head.ModTime.Equal(date) {
			t.Errorf("%s is of group %d and of %v", name, head.Gid, head.ModTime)
		}
	}
	if d := cmp.Diff(map[string]string{ // no shell, and nothing but /data that its user could change
		"data/": "drwxr-x--- 65532", "etc/": "drwxr-xr-x 0", "etc/group": "-rw-r--r-- 0", "etc/passwd": "-rw-r--r-- 0",
		"etc/ssl/": "drwxr-xr-x 0", "etc/ssl/certs/": "drwxr-xr-x 0", "etc/ssl/certs/ca-certificates.crt": "-rw-r--r-- 0",
		"usr/": "drwxr-xr-x 0", "usr/bin/": "drwxr-xr-x 0", "usr/bin/switchyard": "-rwxr-xr-x 0", "usr/share/": "drwxr-xr-x 0",
		"usr/share/doc/": "drwxr-xr-x 0", "usr/share/doc/switchyard/": "drwxr-xr-x 0", "usr/share/doc/switchyard/LICENSES": "-rw-r--r-- 0",
	}, got); d != "" {
		t.Errorf("its files (-want +got):\n%s", d)
	}
	c := u.config.Config
	if c.User != "65532:65532" || c.Labels["org.opencontainers.image.revision"] != commit || c.Labels["org.opencontainers.image.version"] != "1.2.3" ||
		!slices.Equal(c.Healthcheck.Test, []string{"CMD", "/usr/bin/switchyard", "ready"}) || !u.config.Created.Equal(date) {
		t.Errorf("its configuration is %+v, created %v", c, u.config.Created)
	}
	if !bytes.Equal(u.bodies["usr/bin/switchyard"], archived(t, out, "linux", arch)["switchyard"]) {
		t.Error("it has another binary than the archive")
	}
	certificates := 0
	for rest := u.bodies["etc/ssl/certs/ca-certificates.crt"]; ; certificates++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Error(err)
		}
	}
	if certificates < 100 {
		t.Errorf("it trusts %d authorities", certificates)
	}
	t.Run("runs read-only", func(t *testing.T) { runImage(t, u) })
}

// served starts the server as its container would: the image's user in the image's files, which
// are read-only except for /data, and no network; then it waits for the health command's yes.
const served = `set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount --bind "$DATA" "$ROOT/data"
inside="env -i $IMAGE_ENV SWITCHYARD_ADMIN_LISTEN=unix:/data/admin.sock NOMAD_ADDR=http://127.0.0.1:1
  SWITCHYARD_LISTEN=127.0.0.1:0 SWITCHYARD_PUBLIC_URL=http://127.0.0.1:1 SWITCHYARD_RULES=/data/rules.yaml
  SWITCHYARD_WEBHOOK_SECRET=0123456789abcdef SWITCHYARD_GITHUB_TOKEN=t0ken /usr/sbin/chroot --userspec=65532:65532 $ROOT"
$inside /usr/bin/switchyard serve &
server=$!
trap 'kill -9 $server 2>/dev/null || true' EXIT
until $inside /usr/bin/switchyard ready; do
  kill -0 $server
  sleep 0.2
done
kill $server
wait $server
`

func runImage(t *testing.T, u unpacked) {
	if os.Getuid() != 0 || runtime.GOARCH != u.config.Architecture {
		t.Skip("needs root")
	}
	root, data := filepath.Join(t.TempDir(), "root"), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var paths []string
	for name := range u.files {
		paths = append(paths, name)
	}
	slices.Sort(paths) // folders first
	must(os.Mkdir(root, 0o755))
	for _, name := range paths {
		head, path := u.files[name], filepath.Join(root, name)
		if head.Typeflag == tar.TypeDir {
			must(os.Mkdir(path, head.FileInfo().Mode()))
		} else {
			must(os.WriteFile(path, u.bodies[name], head.FileInfo().Mode()))
		}
		must(os.Chown(path, head.Uid, head.Gid))
	}
	must(os.WriteFile(filepath.Join(data, "rules.yaml"), read(t, "..", "rules.example.yaml"), 0o644))
	must(os.Chown(data, 65532, 65532))

	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "sh", "-c", served)
	cmd.Env = append(os.Environ(), "ROOT="+root, "DATA="+data, "IMAGE_ENV="+strings.Join(u.config.Config.Env, " "))
	said, err := cmd.CombinedOutput()
	if bytes.Contains(said, []byte("unshare failed")) {
		t.Skipf("this machine forbids it: %s", said)
	}
	if err != nil || !bytes.Contains(said, []byte("\ndegraded: ")) {
		t.Errorf("%v\n%s", err, said)
	}
	if info, err := os.Stat(filepath.Join(data, "switchyard.db")); err != nil || info.Size() == 0 {
		t.Errorf("its database: %v", err)
	}
}
