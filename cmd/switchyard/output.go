package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"switchyard/router"
	"switchyard/rules"
)

// writeFindings prints findings for people, each with an excerpt of its line.
func writeFindings(w io.Writer, files []rules.File, found rules.Diagnostics) {
	excerpts := make([]string, len(found))
	for _, f := range files {
		for i, excerpt := range found.Excerpts(f.Name, f.Source) {
			excerpts[i] += excerpt
		}
	}
	for i, d := range found {
		fmt.Fprintf(w, "%s\n%s", d, excerpts[i])
	}
}

// checkFormat returns an error unless --format is one of two or more known ones.
func checkFormat(format string, known ...string) error {
	if slices.Contains(known, format) {
		return nil
	}
	last := len(known) - 1
	return fmt.Errorf("--format %q: want %s or %s", format, strings.Join(known[:last], ", "), known[last])
}

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(router.PrintableJSON(b.Bytes()))
	return err
}

// annotate prints a workflow command, with which GitHub Actions shows a message at
// its place in a pull request
// (https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions, read 2026-11).
func annotate(w io.Writer, level, file string, line, column int, title, message string) error {
	data := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	if title != "" {
		title = ",title=" + property.Replace(title)
	}
	_, err := fmt.Fprintf(w, "::%s file=%s,line=%d,col=%d%s::%s\n", level, property.Replace(file), line, column, title, data.Replace(message))
	return err
}
