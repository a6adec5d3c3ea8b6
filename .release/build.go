package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A build is the program for one platform, and what Go recorded in it.
type build struct {
	os, arch        string
	path            string
	binary          []byte
	licenses        []byte // of all that is in the binary
	version, commit string
	date            time.Time // of the commit
	info            *buildinfo.BuildInfo
}

// compile builds the program for a target, such as linux/amd64, in dir.
func compile(source, dir, target string) (*build, error) {
	goos, goarch, ok := strings.Cut(target, "/")
	if !ok {
		return nil, errors.New("want a target such as linux/amd64")
	}
	b := &build{os: goos, arch: goarch, path: filepath.Join(dir, goos+"-"+goarch)}
	cmd := exec.Command("go", "build", "-buildvcs=true", "-trimpath", "-ldflags=-s -w", "-o", b.path, "./cmd/switchyard")
	cmd.Dir, cmd.Env, cmd.Stderr = source, b.environ(), os.Stderr
	err := cmd.Run()
	if err != nil {
		return nil, err
	}
	if b.binary, err = os.ReadFile(b.path); err != nil {
		return nil, err
	}
	if b.info, err = buildinfo.ReadFile(b.path); err != nil {
		return nil, err
	}
	b.version = b.info.Main.Version
	for _, s := range b.info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = s.Value
		case "vcs.time":
			b.date, _ = time.Parse(time.RFC3339, s.Value) // else it is zero
		}
	}
	if b.commit == "" || b.date.IsZero() || !strings.HasPrefix(b.version, "v") {
		return nil, fmt.Errorf("version %q, commit %q, date %v: build in a clone by git, with its tags", b.version, b.commit, b.date)
	}
	return b, nil
}

// environ returns the environment of go for the build's platform. What would change the
// program is the same everywhere.
func (b *build) environ() []string {
	return append(os.Environ(), "GOOS="+b.os, "GOARCH="+b.arch, "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off", "GOWORK=off")
}

// name begins the names of a build's files.
func (b *build) name() string {
	return fmt.Sprintf("switchyard_%s_%s_%s", b.plainVersion(), b.os, b.arch)
}

// plainVersion returns the version as packages and images have it.
func (b *build) plainVersion() string { return strings.TrimPrefix(b.version, "v") }

func (b *build) executable() string {
	if b.os == "windows" {
		return "switchyard.exe"
	}
	return "switchyard"
}
