package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"switchyard/router/web/problem"
)

// Parameters are those of a query. Each is read once; End returns the first fault,
// and refuses what was not read.
type Parameters struct {
	url.Values
	read  []string
	fault error
}

func (p *Parameters) refuse(format string, args ...any) {
	if p.fault == nil {
		p.fault = problem.New(http.StatusBadRequest, format, args...)
	}
}

// Text reads a parameter; "": it is not given.
func (p *Parameters) Text(name string) string {
	p.read = append(p.read, name)
	v := p.Values[name]
	switch {
	case len(v) > 1:
		p.refuse("%s is given twice", name)
	case len(v) == 1 && len(v[0]) > maxParameter:
		p.refuse("%s is longer than %d bytes", name, maxParameter)
	case len(v) == 1:
		return v[0]
	}
	return ""
}

// oneOf reads a parameter that may be given several times, or hold several values with commas.
func oneOf[T ~string](p *Parameters, name string, known ...T) (values []T) {
	p.read = append(p.read, name)
	for _, text := range strings.Split(strings.Join(p.Values[name], ","), ",") {
		if text == "" {
			continue
		}
		if !slices.Contains(known, T(text)) {
			p.refuse("%s %q: want one of %s", name, text, join(known))
			return nil
		}
		if !slices.Contains(values, T(text)) {
			values = append(values, T(text))
		}
	}
	return values
}

func join[T ~string](values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, string(v))
	}
	return strings.Join(texts, ", ")
}

func (p *Parameters) time(name string) time.Time {
	text := p.Text(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		p.refuse("%s %q: want a time such as 2026-11-01T08:00:00Z", name, text)
	}
	return t
}

// Number reads a number from least to most.
func (p *Parameters) Number(name string, otherwise, least, most int64) int64 {
	text := p.Text(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		p.refuse("%s %q: want a number from %d to %d", name, text, least, most)
	}
	return n
}

// Flag reads true or false.
func (p *Parameters) Flag(name string) bool {
	switch text := p.Text(name); text {
	case "", "false":
		return false
	case "true":
		return true
	default:
		p.refuse("%s %q: want true or false", name, text)
		return false
	}
}

// End returns the first fault.
func (p *Parameters) End() error {
	for name := range p.Values {
		if !slices.Contains(p.read, name) {
			p.refuse("unknown parameter %q: want %s", name, strings.Join(p.read, ", "))
		}
	}
	return p.fault
}

// noParameters refuses a request with parameters.
func noParameters(req *http.Request) error {
	p := Parameters{Values: req.URL.Query()}
	return p.End()
}
