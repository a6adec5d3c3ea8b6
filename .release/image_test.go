package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

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
		eachFile(t, bytes.NewReader(content), func(head *tar.Header, body []byte) {
			u.files[head.Name], u.bodies[head.Name] = head, body
		})
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
	if u.config.Architecture != arch || c.User != "65532:65532" || c.Labels["org.opencontainers.image.revision"] != commit || c.Labels["org.opencontainers.image.version"] != "1.2.3" ||
		!slices.Equal(c.Healthcheck.Test, []string{"CMD", "/usr/bin/switchyard", "ready"}) || !u.config.Created.Equal(date) {
		t.Errorf("its configuration for %s is %+v, created %v", u.config.Architecture, c, u.config.Created)
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
	if os.Getuid() != 0 {
		t.Skip("needs root, for the image's user and read-only files: sudo go -C .release test -short")
	}
	root, data := filepath.Join(t.TempDir(), "root"), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(root, 0o755))
	for _, name := range slices.Sorted(maps.Keys(u.files)) { // folders first
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
		t.Skipf("needs a machine or container that permits mounts, such as by CAP_SYS_ADMIN: %s", said)
	}
	if err != nil || !bytes.Contains(said, []byte("\ndegraded: ")) {
		t.Errorf("%v\n%s", err, said)
	}
	if info, err := os.Stat(filepath.Join(data, "switchyard.db")); err != nil || info.Size() == 0 {
		t.Errorf("its database: %v", err)
	}
}
