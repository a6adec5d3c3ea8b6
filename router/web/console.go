package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"switchyard/router"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

//go:embed templates assets
var files embed.FS

// policy lets a page load nothing but what this server has, and run nothing
// that stands in it.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// A consolePage is one page: data is what its template shows.
type consolePage struct {
	path, template string
	title          string // "": the data is a titled
	nav            bool   // it stands in the navigation
	role           auth.Role
	data           func(*http.Request) (any, error)
}

// titled data says the title of its page.
type titled interface{ Title() string }

func (s *console) pages() []consolePage {
	pages := []consolePage{
		{"/", "now", "Now", true, auth.Viewer, s.now.page},
		{"/jobs", "jobs", "Jobs", true, auth.Viewer, s.jobsPage},
		{"/jobs/{id}", "job", "", false, auth.Viewer, s.jobPage},
		{"/runners", "runners", "Runners", true, auth.Viewer, s.runnersPage},
		{"/labels", "labels", "Labels", true, auth.Viewer, s.labelsPage},
		{"/playground", "playground", "Playground", true, auth.Viewer, s.playgroundPage},
	}
	if s.rules != nil {
		pages = append(pages, s.rules.pages()...)
	}
	return append(pages,
		consolePage{"/fleet", "fleet", "Fleet", true, auth.Viewer, s.fleetPage},
		consolePage{"/usage", "usage", "Usage", true, auth.Viewer, s.usagePage},
		consolePage{"/whatif", "whatif", "What if", true, auth.Viewer, s.whatIfPage},
		consolePage{"/audit", "audit", "Audit", true, auth.Editor, s.api.Turns.Do(s.api.Audits)},
	)
}

// A view is what a template sees.
type view struct {
	Title string
	Page  consolePage
	Pages []consolePage // of the navigation, for this principal
	Who   auth.Principal
	Now   time.Time
	Bar   *bar // nil: nothing is wrong

	Replicas string // which answers, and which leads; "": there are none

	Data    any
	Content template.HTML // the block content, made of it
}

// Path and Name are for the navigation.
func (p consolePage) Path() string { return p.path }
func (p consolePage) Name() string { return p.title }

// May reports whether the principal has the role with this name.
func (v view) May(role string) bool {
	return v.Who.Role >= map[string]auth.Role{"viewer": auth.Viewer, "operator": auth.Operator, "editor": auth.Editor}[role]
}

// Scoped reports whether the principal sees the jobs of some repositories only.
func (v view) Scoped() bool { return v.Who.Scope != nil }

// templates are the pages, by name. They are read when the first one is asked for: most commands
// show none.
var templates = sync.OnceValue(func() map[string]*template.Template {
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		panic(err)
	}
	all := map[string]*template.Template{}
	for _, name := range names {
		name = strings.TrimSuffix(path.Base(name), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		all[name] = template.Must(template.New(name).Funcs(functions).ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/"+name+".html"))
	}
	return all
})

var functions = template.FuncMap{
	"short":     short,
	"reason":    reason,
	"sentence":  sentence,
	"number":    number,
	"asset":     asset,
	"shortened": router.Shorten,
	"text":      router.Printable, // for every text of a stranger
	"took":      took,
	"utc":       func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"stamp":     func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"placement": PlacementRows,
	"trace":     TraceRows,
	"words":     strings.Fields,
	"join":      rules.ShowLabels,
}

// short returns a stranger's text for a list: safe, and cut when it is long.
func short(s string) string {
	return router.Printable(router.Shorten(s, 120))
}

// reason returns a reason for a list: safe, and cut in its middle when it is long, as the
// mend stands at its end.
func reason(s string) string {
	const first, last = 160, 240
	runes := []rune(s)
	if len(runes) > first+last {
		s = string(runes[:first]) + " … " + string(runes[len(runes)-last:])
	}
	return router.Printable(s)
}

// sentence returns a stranger's text that begins like a sentence.
func sentence(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return router.Printable(string(unicode.ToUpper(first)) + s[size:])
}

// number writes a count with spaces between thousands.
func number(n int) string { return router.Thousands(n, "\u202f") }

// took writes a duration as people say it: 480 ms, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h.
func took(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return pair(d, time.Minute, "min", time.Second, "s")
	case d < 24*time.Hour:
		return pair(d, time.Hour, "h", time.Minute, "min")
	}
	return pair(d, 24*time.Hour, "d", time.Hour, "h")
}

func pair(d, large time.Duration, largeUnit string, small time.Duration, smallUnit string) string {
	s := fmt.Sprintf("%d %s", d/large, largeUnit)
	if rest := d % large / small; rest > 0 {
		s += fmt.Sprintf(" %d %s", rest, smallUnit)
	}
	return s
}

// page returns the handler of a page.
func (s *console) page(p consolePage) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := s.frame.content(req, p)
		if c.err != nil {
			s.fail(w, req, c.err)
			return
		}
		status := http.StatusOK
		if has, ok := c.data.(interface{ Status() int }); ok {
			status = has.Status()
		}
		s.frame.answer(w, req, status, p, c)
	})
}

func (s *console) loginPage(w http.ResponseWriter, req *http.Request, status int, form auth.Login) {
	s.frame.render(w, req, status, consolePage{template: "login", title: "Log in"}, form)
}

// form returns the handler of a change; do says where to go then.
func (s *console) form(do func(*http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := req.ParseForm(); err != nil {
			s.fail(w, req, formError(err))
			return
		}
		goTo, err := do(req)
		s.frame.kept.clear() // who changed something wants to see it
		if err != nil {
			s.fail(w, req, err)
			return
		}
		http.Redirect(w, req, goTo, http.StatusSeeOther)
	})
}

func formError(err error) error {
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem.New(http.StatusRequestEntityTooLarge, "the form has more than %d bytes", large.Limit)
	}
	return problem.New(http.StatusBadRequest, "the form cannot be read: %v", err)
}

const assetPrefix = "/assets/"

// assets are the embedded files under their addresses, which hold a hash of
// the content, so that a browser may keep them.
var assets, assetNames = func() (byPath map[string][]byte, byName map[string]string) {
	byPath, byName = map[string][]byte{}, map[string]string{}
	entries, err := files.ReadDir("assets")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		b, err := files.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(b)
		ext := path.Ext(e.Name())
		at := assetPrefix + strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		byPath[at], byName[e.Name()] = b, at
	}
	return byPath, byName
}()

// asset returns the address of an embedded file.
func asset(name string) (string, error) {
	at, ok := assetNames[name]
	if !ok {
		return "", fmt.Errorf("there is no asset %s", name)
	}
	return at, nil
}

func serveAsset(w http.ResponseWriter, req *http.Request) {
	b, ok := assets[req.URL.Path]
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(req.URL.Path)))
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(b))
}
