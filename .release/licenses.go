package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are the licenses that a module in the binary may have: they ask for no more than a
// copy of their text, or, MPL-2.0, for the sources of a module that somebody changed.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "Unicode-DFS-2016", "Unlicense"}

// A module is one that is in the binary.
type module struct {
	path, version, sum string
	licenses           []string // SPDX identifiers, sorted
	texts              []file   // of its licenses and notices
}

var (
	licenseFile = regexp.MustCompile(`(?i)^(un)?(licen[sc]e|copying|copyright)([-._].*)?$`)
	noticeFile  = regexp.MustCompile(`(?i)^notice([-._].*)?$`)
)

// licensed returns the modules in the binary, Go's standard library first, with their licenses.
// It fails if one has none, or one that is not allowed.
func (b *build) licensed(source string) ([]module, error) {
	dirs, err := b.directories(source)
	if err != nil {
		return nil, err
	}
	mods := []module{{path: "std", version: strings.TrimPrefix(b.info.GoVersion, "go")}}
	for _, m := range b.info.Deps {
		if m.Replace != nil {
			return nil, fmt.Errorf("%s is replaced", m.Path)
		}
		mods = append(mods, module{path: m.Path, version: m.Version, sum: m.Sum})
	}
	var errs []error
	for i := range mods {
		errs = append(errs, mods[i].read(dirs[mods[i].path]))
	}
	return mods, errors.Join(errs...)
}

// directories returns the folder of each module that the program needs; that of std is GOROOT.
func (b *build) directories(source string) (map[string]string, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=Module,Root", "./cmd/switchyard")
	cmd.Dir, cmd.Env, cmd.Stderr = source, b.environ(), os.Stderr
	listed, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the modules: %w", err)
	}
	dirs := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(listed)); ; {
		var p struct {
			Module *struct{ Path, Dir string } // none of the standard library
			Root   string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return dirs, nil
		} else if err != nil {
			return nil, fmt.Errorf("list the modules: %w", err)
		}
		if p.Module != nil {
			dirs[p.Module.Path] = p.Module.Dir
		} else {
			dirs["std"] = p.Root
		}
	}
}

// read finds the module's licenses in its folder.
func (m *module) read(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", m.path, err)
	}
	for _, f := range files {
		license := licenseFile.MatchString(f.Name())
		if f.IsDir() || !license && !noticeFile.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		m.texts = append(m.texts, file{name: f.Name(), body: text})
		if !license {
			continue
		}
		for _, match := range licensecheck.Scan(text).Match {
			if !match.IsURL {
				m.licenses = append(m.licenses, match.ID)
			}
		}
	}
	slices.Sort(m.licenses)
	m.licenses = slices.Compact(m.licenses)
	if len(m.licenses) == 0 {
		return fmt.Errorf("%s has no license that is known", m.path)
	}
	for _, id := range m.licenses {
		if !slices.Contains(allowed, id) {
			return fmt.Errorf("%s has the license %s, which is not one of %s", m.path, id, strings.Join(allowed, ", "))
		}
	}
	return nil
}

// notices returns the texts that must come with the binary.
func notices(mods []module) []byte {
	var b bytes.Buffer
	b.WriteString("What Switchyard's binary contains besides its own code, and the terms of each part.\n")
	for _, m := range mods {
		for _, t := range m.texts {
			fmt.Fprintf(&b, "\n==== %s %s: %s\n\n%s\n", m.path, m.version, t.name, bytes.TrimSpace(bytes.ReplaceAll(t.body, []byte("\r\n"), []byte("\n"))))
		}
	}
	return b.Bytes()
}
