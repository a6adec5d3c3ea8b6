package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// bom returns the bill of materials of a build in CycloneDX's JSON form: the program and each
// module that Go recorded in it.
func (b *build) bom(mods []module) ([]byte, error) {
	program := cyclonedx.Component{
		BOMRef: "switchyard", Type: cyclonedx.ComponentTypeApplication, Name: "switchyard", Version: b.version,
		Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sha256.Sum256(b.binary))}},
		Properties: &[]cyclonedx.Property{
			{Name: "commit", Value: b.commit}, {Name: "os", Value: b.os}, {Name: "arch", Value: b.arch}, {Name: "go", Value: b.info.GoVersion},
		},
	}
	var components []cyclonedx.Component
	var refs []string
	for _, m := range mods {
		c := cyclonedx.Component{Type: cyclonedx.ComponentTypeLibrary, Name: m.path, Version: m.version, PackageURL: "pkg:golang/" + m.path + "@" + strings.ReplaceAll(m.version, "+", "%2B")}
		c.BOMRef = c.PackageURL
		if m.sum != "" {
			sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.sum, "h1:"))
			if err != nil {
				return nil, fmt.Errorf("checksum of %s: %w", m.path, err)
			}
			c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sum)}} // go.sum's, of the module's files
		}
		licenses := cyclonedx.Licenses{}
		for _, id := range m.licenses {
			licenses = append(licenses, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id}})
		}
		c.Licenses = &licenses
		components, refs = append(components, c), append(refs, c.BOMRef)
	}
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = serial(b)
	bom.Metadata = &cyclonedx.Metadata{Timestamp: b.date.UTC().Format(time.RFC3339), Component: &program}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}}

	var w bytes.Buffer
	err := cyclonedx.NewBOMEncoder(&w, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cyclonedx.SpecVersion1_6)
	return w.Bytes(), err
}

// serial returns a UUID (version 8 of RFC 9562) of the binary.
func serial(b *build) string {
	id := sha256.Sum256(b.binary)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
}
