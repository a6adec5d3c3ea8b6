// Command release makes everything that a release publishes, out of one commit: binaries,
// archives, packages, bills of materials, a container image and the checksums. Built twice, from
// whatever folder, a commit gives the same bytes, so nothing here reads a clock or the machine.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// targets are the platforms of a release.
var targets = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64"}

func main() {
	out := flag.String("out", "", "an empty or new `directory` for the release")
	only := flag.String("targets", strings.Join(targets, ","), "platforms, separated by commas")
	flag.Parse()
	if err := release("..", *out, strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// release writes the release of source, the root of the repository, into out.
func release(source, out string, targets []string) error {
	if out == "" {
		return errors.New("-out is required")
	}
	if old, err := os.ReadDir(out); err == nil && len(old) > 0 {
		return fmt.Errorf("%s is not empty: remove it, or give another -out", out)
	}
	if changed, err := exec.Command("git", "-C", source, "status", "--porcelain").Output(); err != nil {
		return fmt.Errorf("git status: %w", err)
	} else if len(changed) > 0 {
		return fmt.Errorf("these changes are not committed:\n%s", changed)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	var linux []*build
	for _, target := range targets {
		b, err := compile(source, scratch, target)
		if err != nil {
			return fmt.Errorf("build for %s: %w", target, err)
		}
		if err := b.publish(source, out); err != nil {
			return fmt.Errorf("release for %s: %w", target, err)
		}
		fmt.Println(b.name())
		if b.os == "linux" {
			linux = append(linux, b)
		}
	}
	if len(linux) > 0 {
		name := filepath.Join(out, fmt.Sprintf("switchyard_%s_image.tar", linux[0].plainVersion()))
		digest, err := writeImage(name, linux)
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		fmt.Println("image", digest)
	}
	return checksums(out)
}

// publish writes what is released of one build.
func (b *build) publish(source, out string) error {
	mods, err := b.licensed(source)
	if err != nil {
		return err
	}
	b.licenses = notices(mods)
	bom, err := b.bom(mods)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, b.name()+".cdx.json"), bom, 0o644); err != nil {
		return err
	}
	if err := b.archive(source, out); err != nil {
		return err
	}
	if b.os == "linux" {
		return b.packages(source, out)
	}
	return nil
}

// A file is one of an archive or of an image's layer.
type file struct {
	name string // with / between, and at the end of a directory's
	mode int64
	uid  int
	body []byte
}

// archive writes the archive of a build: a zip for Windows, a tar otherwise.
func (b *build) archive(source, out string) error {
	files := []file{
		{name: b.executable(), mode: 0o755, body: b.binary},
		{name: "LICENSES", mode: 0o644, body: b.licenses},
	}
	add := func(name, from string) error {
		body, err := os.ReadFile(filepath.Join(source, from))
		files = append(files, file{name: name, mode: 0o644, body: body})
		return err
	}
	err := add("rules.example.yaml", "rules.example.yaml")
	switch b.os {
	case "linux":
		err = errors.Join(err, add("switchyard.service", ".release/files/switchyard.service"), add("switchyard.env", ".release/files/switchyard.env"))
	case "darwin":
		err = errors.Join(err, add("switchyard.plist", ".release/files/switchyard.plist"))
	}
	if err != nil {
		return err
	}
	var written bytes.Buffer
	name := b.name()
	if b.os == "windows" {
		name += ".zip"
		err = writeZip(&written, files, b.date)
	} else {
		name += ".tar.gz"
		err = writeTarGz(&written, files, b.date)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, name), written.Bytes(), 0o644)
}

func writeTarGz(w io.Writer, files []file, date time.Time) error {
	z := gzip.NewWriter(w)
	return errors.Join(writeTar(z, files, date), z.Close())
}

func writeTar(w io.Writer, files []file, date time.Time) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		head := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.uid, Size: int64(len(f.body)), ModTime: date}
		if strings.HasSuffix(f.name, "/") {
			head.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(head); err != nil {
			return err
		}
		if _, err := t.Write(f.body); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeZip(w io.Writer, files []file, date time.Time) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		head := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: date}
		head.SetMode(os.FileMode(f.mode))
		body, err := z.CreateHeader(head)
		if err != nil {
			return err
		}
		if _, err := body.Write(f.body); err != nil {
			return err
		}
	}
	return z.Close()
}

// checksums writes checksums.txt, which sha256sum --check reads, of all files in dir.
func checksums(dir string) error {
	files, err := os.ReadDir(dir) // sorted
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, f := range files {
		body, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(body), f.Name())
	}
	return os.WriteFile(filepath.Join(dir, "checksums.txt"), sums.Bytes(), 0o644)
}
