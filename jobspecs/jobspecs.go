// Package jobspecs owns the built-in runner jobspecs and the loading of an
// operator's own. A jobspec is a plain Nomad job; README.md says what a runner
// job must do.
package jobspecs

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The services beside them, such as switchyard.nomad.hcl, are left out: they are no runners.
//
//go:embed docker-linux.* docker-linux-dind.* docker-windows.* podman-linux.* raw-exec-* tart-macos.*
var builtin embed.FS

// Service is the jobspec of Switchyard itself, which switchyard init fills in.
//
//go:embed switchyard.nomad.hcl
var Service string

const (
	hclSuffix    = ".nomad.hcl"
	jsonSuffix   = ".nomad.json"
	parsedSuffix = ".parsed.json" // beside a built-in; not a suffix that Load looks for

	builtinPath = "built-in " // begins the path of a built-in

	maxSize = 1 << 20 // bytes of one file; Nomad's own limit for a job source is as much
)

// RunnerVersion is the version of GitHub's runner that the built-in jobspecs carry: docker-linux,
// docker-linux-dind and podman-linux in their image. The others start the runner that lies on the node.
const RunnerVersion = "2.336.0"

// A Jobspec is one runner jobspec.
type Jobspec struct {
	Name   string // "docker-linux"
	Path   string // for messages: the file, or "built-in docker-linux.nomad.hcl"
	Source []byte // the file: HCL, or Nomad JSON
	Hash   string // hex SHA-256 of Source
	Parsed []byte // JSON of the job as /v1/jobs/parse answers it; nil: HCL that a Nomad must parse
	Waits  bool   // it asks whether it is to wait at the claim for a job
	Claims bool   // it uses the claim's URL or token; false: its runners bring their own registration

	Verifies bool // it asks whether a runner may serve the job that it was given
}

// A Set is the jobspecs that rules can name. It never changes and is safe for
// concurrent use; so that it stays that way, do not write to the bytes in it.
type Set struct{ specs map[string]Jobspec }

// Load returns the built-in jobspecs together with each *.nomad.hcl and *.nomad.json in
// dir, which replace built-ins of the same name; "" is no dir. JSON is as for Nomad's API:
// {"Job": {…}}, or the job alone. Only the syntax is checked. The error joins all faults,
// each as file:line:column: what is wrong.
func Load(dir string) (*Set, error) {
	specs, err := builtins()
	if err != nil {
		return nil, err
	}
	s := &Set{maps.Clone(specs)}
	if dir == "" {
		return s, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var (
		errs []error
		from = map[string]string{} // names in dir to their paths
	)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		name, isHCL := strings.CutSuffix(e.Name(), hclSuffix)
		isJSON := false
		if !isHCL {
			name, isJSON = strings.CutSuffix(name, jsonSuffix)
		}
		if !isHCL && !isJSON || strings.HasPrefix(e.Name(), ".") { // leftovers of editors and of macOS
			continue
		}
		if other, taken := from[name]; taken {
			errs = append(errs, fmt.Errorf("%s:1:1: jobspec %s is also in %s; keep one of them", path, name, other))
			continue
		}
		from[name] = path
		spec, err := load(name, path, isHCL)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.specs[name] = spec
	}
	if len(from) == 0 {
		errs = append(errs, fmt.Errorf("%s holds no jobspec: their names end in %s or %s", dir, hclSuffix, jsonSuffix))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// With returns the built-in jobspecs together with own, which replace built-ins
// of the same name and are not checked again.
func With(own []Jobspec) (*Set, error) {
	s, err := Load("")
	if err != nil {
		return nil, err
	}
	for _, spec := range own {
		s.specs[spec.Name] = spec
	}
	return s, nil
}

// Own returns the jobspecs that are not built in, by name.
func (s *Set) Own() []Jobspec {
	var own []Jobspec
	for _, name := range s.Names() {
		if spec := s.specs[name]; !strings.HasPrefix(spec.Path, builtinPath) {
			own = append(own, spec)
		}
	}
	return own
}

// Names returns the names of all jobspecs, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.specs)) }

// Get returns the jobspec of that name.
func (s *Set) Get(name string) (Jobspec, bool) {
	spec, ok := s.specs[name]
	return spec, ok
}

// parsedFile is a built-in's parsed form, written by go test -update.
type parsedFile struct {
	HCLSHA256 string          `json:"hcl_sha256"`
	Job       json.RawMessage `json:"job"`
}

// builtins returns the built-in jobspecs, by name.
var builtins = sync.OnceValues(func() (map[string]Jobspec, error) {
	entries, err := builtin.ReadDir(".")
	if err != nil {
		return nil, err
	}
	specs := map[string]Jobspec{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), hclSuffix)
		if !ok {
			continue
		}
		src, err := builtin.ReadFile(e.Name())
		if err != nil {
			return nil, err
		}
		spec := newJobspec(name, builtinPath+e.Name(), src)
		spec.readHCL()
		raw, err := builtin.ReadFile(name + parsedSuffix)
		if err != nil {
			return nil, err
		}
		var parsed parsedFile
		if err := json.Unmarshal(raw, &parsed); err != nil {
			return nil, fmt.Errorf("%s: %w", name+parsedSuffix, err)
		}
		if parsed.HCLSHA256 == spec.Hash { // else it is of other HCL, and a Nomad must parse this one
			spec.Parsed = parsed.Job
		}
		specs[name] = spec
	}
	return specs, nil
})

func load(name, path string, isHCL bool) (Jobspec, error) {
	src, err := read(path)
	if err != nil {
		return Jobspec{}, err
	}
	spec := newJobspec(name, path, src)
	if isHCL {
		spec.readHCL()
		return spec, checkHCL(path, src)
	}
	spec.Parsed, err = parseJSON(path, src)
	spec.Claims, spec.Waits, spec.Verifies = Claims(spec.Parsed), uses(spec.Parsed, warmMeta), Verifies(spec.Parsed)
	return spec, err
}

// readHCL sets what the HCL does.
func (s *Jobspec) readHCL() {
	text := textHCL(s.Source)
	s.Claims, s.Waits, s.Verifies = usesText(text, claimMeta), usesText(text, warmMeta), usesText(text, verifyMeta)
}

func newJobspec(name, path string, src []byte) Jobspec {
	hash := sha256.Sum256(src)
	return Jobspec{Name: name, Path: path, Source: src, Hash: hex.EncodeToString(hash[:])}
}

// A PlaceError is why Open does not open a file. Its Reason follows the path in a sentence.
type PlaceError struct{ Path, Reason string }

func (e *PlaceError) Error() string { return e.Path + ":1:1: " + e.Reason }

// Open opens a regular file of a directory whose files were not named one by one. A link
// that leads out of the directory is not followed, because who may put files there need
// not be allowed to read what this process can. Links within it are, as in a Kubernetes
// volume of a ConfigMap. The error for all others is a *PlaceError.
func Open(path string) (*os.File, error) {
	at, err := filepath.EvalSymlinks(path)
	if err != nil {
		if info, there := os.Lstat(path); there == nil && info.Mode()&os.ModeSymlink != 0 {
			return nil, &PlaceError{path, "a link that cannot be followed: " + err.Error()}
		}
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	inside, err := filepath.Rel(dir, at)
	if err != nil || !filepath.IsLocal(inside) {
		return nil, &PlaceError{path, "a link that leads out of its directory is not read; put the file itself there"}
	}
	root, err := os.OpenRoot(dir) // it follows no link out, if one came into being just now
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(inside)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // to open a pipe would wait for a writer
		return nil, &PlaceError{path, "not a regular file"}
	}
	return root.Open(inside)
}

func read(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(src) > maxSize {
		return nil, fmt.Errorf("%s:1:1: larger than a jobspec may be (%d bytes)", path, maxSize)
	}
	return src, nil
}

// checkHCL checks the syntax, and that the file is a job at all.
func checkHCL(path string, src []byte) error {
	file, diags := hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	var errs []error
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			at := hcl.InitialPos
			if d.Subject != nil {
				at = d.Subject.Start
			}
			errs = append(errs, fmt.Errorf("%s:%d:%d: %s: %s", path, at.Line, at.Column, strings.TrimSuffix(d.Summary, "."), d.Detail))
		}
	}
	if errs != nil {
		return errors.Join(errs...)
	}
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		if b.Type == "job" {
			return nil
		}
	}
	return fmt.Errorf("%s:1:1: no job block, so this is not a jobspec", path)
}

// parseJSON returns the job in src.
func parseJSON(path string, src []byte) ([]byte, error) {
	fault := func(offset int64, format string, args ...any) error {
		before := src[:min(max(offset, 0), int64(len(src)))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := len([]rune(string(before[bytes.LastIndexByte(before, '\n')+1:]))) + 1
		return fmt.Errorf("%s:%d:%d: %s", path, line, column, fmt.Sprintf(format, args...))
	}
	var envelope struct{ Job json.RawMessage }
	var (
		syntax *json.SyntaxError
		typed  *json.UnmarshalTypeError
	)
	switch err := json.Unmarshal(src, &envelope); {
	case errors.As(err, &syntax):
		return nil, fault(syntax.Offset-1, "%v", err) // Offset counts the byte it fell over
	case errors.As(err, &typed):
		return nil, fault(0, "a %s, not a Nomad job", typed.Value)
	case err != nil:
		return nil, fault(0, "%v", err)
	}
	job := []byte(envelope.Job)
	if job == nil {
		job = src
	}
	var some struct{ TaskGroups []json.RawMessage }
	if err := json.Unmarshal(job, &some); err != nil || len(some.TaskGroups) == 0 {
		return nil, fault(0, "no TaskGroups, so this is not a Nomad job")
	}
	return job, nil
}
