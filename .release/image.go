package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The user of the image, and the folder that belongs to it.
const (
	imageUser = 65532
	imageData = "data/"
)

// The forms below are of https://github.com/opencontainers/image-spec (read 2026-11).
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type imageConfig struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		User         string              `json:"User"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Env          []string            `json:"Env"`
		Entrypoint   []string            `json:"Entrypoint"`
		Cmd          []string            `json:"Cmd"`
		Volumes      map[string]struct{} `json:"Volumes"`
		WorkingDir   string              `json:"WorkingDir"`
		Labels       map[string]string   `json:"Labels"`
		Healthcheck  healthcheck         `json:"Healthcheck"` // Docker's addition
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type healthcheck struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// A layout collects the files of an OCI image layout.
type layout struct {
	files []file
	has   map[string]bool
}

// add adds a blob and describes it.
func (l *layout) add(mediaType string, body []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(body))
	if !l.has[sum] {
		l.has[sum] = true
		l.files = append(l.files, file{name: "blobs/sha256/" + sum, mode: 0o644, body: body})
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(body)}
}

func (l *layout) addJSON(mediaType string, v any) (descriptor, error) {
	body, err := json.Marshal(v)
	return l.add(mediaType, body), err
}

// addLayer adds a layer and also returns the digest of its content before compression.
func (l *layout) addLayer(files []file, date time.Time) (layer descriptor, diffID string, err error) {
	var packed bytes.Buffer
	z, sum := gzip.NewWriter(&packed), sha256.New()
	err = errors.Join(writeTar(io.MultiWriter(z, sum), files, date), z.Close())
	return l.add(typeLayer, packed.Bytes()), fmt.Sprintf("sha256:%x", sum.Sum(nil)), err
}

// writeImage writes an image of several platforms as the tar of an OCI image layout, and returns
// its digest.
func writeImage(name string, builds []*build) (digest string, err error) {
	l := &layout{has: map[string]bool{}, files: []file{{name: "oci-layout", mode: 0o644, body: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}}
	b := builds[0]
	about := map[string]string{
		"org.opencontainers.image.title":       "Switchyard",
		"org.opencontainers.image.description": "Starts GitHub Actions runners on HashiCorp Nomad",
		"org.opencontainers.image.version":     b.plainVersion(),
		"org.opencontainers.image.revision":    b.commit,
		"org.opencontainers.image.created":     b.date.UTC().Format(time.RFC3339),
	}
	all := index{SchemaVersion: 2, MediaType: typeIndex, Annotations: about}
	for _, b := range builds {
		m, err := l.image(b, about)
		if err != nil {
			return "", err
		}
		all.Manifests = append(all.Manifests, m)
	}
	top, err := l.addJSON(typeIndex, all)
	if err != nil {
		return "", err
	}
	digest = top.Digest
	top.Annotations = map[string]string{"org.opencontainers.image.ref.name": b.plainVersion()}
	entry, err := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{top}})
	if err != nil {
		return "", err
	}
	l.files = append(l.files, file{name: "index.json", mode: 0o644, body: entry})

	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	return digest, errors.Join(writeTar(f, l.files, b.date), f.Close())
}

// image adds the image of one platform: what changes seldom, then the binary.
func (l *layout) image(b *build, about map[string]string) (descriptor, error) {
	base := []file{
		{name: imageData, mode: 0o750, uid: imageUser},
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, body: fmt.Appendf(nil, "root:x:0:\nswitchyard:x:%d:\nnobody:x:65534:\n", imageUser)},
		{name: "etc/passwd", mode: 0o644, body: fmt.Appendf(nil, "root:x:0:0:root:/:/none\nswitchyard:x:%d:%[1]d:Switchyard:/data:/none\nnobody:x:65534:65534:nobody:/:/none\n", imageUser)},
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, body: authorities()},
	}
	program := []file{
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: "usr/bin/switchyard", mode: 0o755, body: b.binary},
		{name: "usr/share/", mode: 0o755},
		{name: "usr/share/doc/", mode: 0o755},
		{name: "usr/share/doc/switchyard/", mode: 0o755},
		{name: "usr/share/doc/switchyard/LICENSES", mode: 0o644, body: b.licenses},
	}
	c := imageConfig{Created: b.date.UTC(), Architecture: b.arch, OS: b.os}
	c.Config.User = fmt.Sprintf("%d:%[1]d", imageUser)
	c.Config.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	c.Config.Env = []string{"PATH=/usr/bin", "SWITCHYARD_DB=/" + imageData + "switchyard.db"}
	c.Config.Entrypoint, c.Config.Cmd = []string{"/usr/bin/switchyard"}, []string{"serve"}
	c.Config.Volumes = map[string]struct{}{"/data": {}}
	c.Config.WorkingDir = "/"
	c.Config.Labels = about
	c.Config.Healthcheck = healthcheck{
		Test: []string{"CMD", "/usr/bin/switchyard", "ready"}, Interval: 30 * time.Second, Timeout: 15 * time.Second, StartPeriod: 30 * time.Second, Retries: 3,
	}
	c.RootFS.Type = "layers"
	m := manifest{SchemaVersion: 2, MediaType: typeManifest, Annotations: about}
	for _, layer := range []struct {
		files []file
		by    string
	}{{base, "certificates of authorities, users, /data"}, {program, "switchyard " + b.version}} {
		d, diffID, err := l.addLayer(layer.files, b.date)
		if err != nil {
			return d, err
		}
		m.Layers = append(m.Layers, d)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, diffID)
		c.History = append(c.History, history{Created: c.Created, CreatedBy: layer.by})
	}
	var err error
	if m.Config, err = l.addJSON(typeConfig, c); err != nil {
		return descriptor{}, err
	}
	d, err := l.addJSON(typeManifest, m)
	d.Platform = &platform{Architecture: b.arch, OS: b.os}
	return d, err
}

// authorities returns Mozilla's root certificates, except those that it trusts under
// conditions which a file cannot express.
func authorities() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // to memory
		}
	}
	return b.Bytes()
}
