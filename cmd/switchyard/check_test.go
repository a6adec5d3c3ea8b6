package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A check that nobody waits for ends, also when its file never comes to an end.
func TestACheckEndsWithItsContext(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no such paths to pipes and devices")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	defer r.Close()
	pipe := fmt.Sprintf("/dev/fd/%d", r.Fd())
	file := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, file, denyAll("first"))
	for _, path := range []string{pipe, file} {
		var stderr bytes.Buffer
		if code := run(ended, []string{"check", path}, nil, io.Discard, &stderr); code != exitUnknown || !strings.Contains(stderr.String(), "context canceled") {
			t.Errorf("check %s ended with %d: %s", path, code, &stderr)
		}
	}
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"check", "/dev/zero"}, nil, io.Discard, &stderr); code != exitUnknown || !strings.Contains(stderr.String(), "larger than a file of rules may be") {
		t.Errorf("check of a device without an end ended with %d: %s", code, &stderr)
	}
}

// What check prints grows with neither the square of the file nor without bound.
func TestTheFaultsOfALargeFileAreFew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yaml")
	for name, line := range map[string]string{"directives": "%YAML 1.2\n", "tags": "k%d: !!str x\n", "rules": "- {}\n"} {
		var src strings.Builder
		src.WriteString("version: 1\n")
		for i := range 3000 {
			src.WriteString(strings.Replace(line, "%d", fmt.Sprint(i), 1))
		}
		write(t, file, src.String())
		var stderr bytes.Buffer
		if code := run(t.Context(), []string{"check", file}, nil, io.Discard, &stderr); code != exitNo || stderr.Len() > 400_000 {
			t.Errorf("%s: check ended with %d, and printed %d bytes", name, code, stderr.Len())
		}
	}
}
