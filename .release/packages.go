package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// packages writes the deb and the rpm of a build, as nfpm.yaml describes them.
func (b *build) packages(source, out string) error {
	licenses := b.path + ".licenses"
	if err := os.WriteFile(licenses, b.licenses, 0o644); err != nil {
		return err
	}
	values := map[string]string{"ARCH": b.arch, "VERSION": b.version, "BINARY": b.path, "LICENSES": licenses}
	for _, format := range []string{"deb", "rpm"} {
		config, err := nfpm.ParseFileWithEnvMapping(filepath.Join(source, ".release", "nfpm.yaml"), func(name string) string { return values[name] })
		if err != nil {
			return fmt.Errorf("nfpm.yaml: %w", err)
		}
		info, err := config.Get(format)
		if err != nil {
			return err
		}
		info.MTime = b.date
		info = nfpm.WithDefaults(info)
		packager, err := nfpm.Get(format)
		if err != nil {
			return err
		}
		var written bytes.Buffer
		if err := packager.Package(info, &written); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
		if err := os.WriteFile(filepath.Join(out, packager.ConventionalFileName(info)), written.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
