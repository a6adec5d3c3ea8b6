package web

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
)

// sharedPages are pages that many have open at once, and whose content depends only on
// role and scope. While anyone follows the stream, which has all of them ask for the page
// at the same time, the content is made once for all, until something changes or
// sharedFresh is over.
var sharedPages = []string{"/", "/jobs", "/jobs/{id}", "/runners"}

// A frame makes pages: their content, and what stands around it.
type frame struct {
	api    *api.API
	logger *slog.Logger
	now    func() time.Time
	pages  []consolePage
	kept   shared[content]
}

// A content is what stands in a page's frame.
type content struct {
	title string
	data  any
	html  template.HTML // made of the data by a template
	err   error
}

// content makes a page's content for a request, or takes what was made for another.
func (f *frame) content(req *http.Request, p consolePage) content {
	position, followed := f.api.Position()
	w := auth.Who(req.Context())
	if !followed || !slices.Contains(sharedPages, p.path) || req.Method != http.MethodGet || f.api.Turns.Crowded(w.Name) {
		return f.make(req, p)
	}
	key := fmt.Sprintf("%d %d %s %s", position, w.Role, scopeKey(w.Scope), req.URL.RequestURI())
	c, err := f.kept.get(req.Context(), key, f.now, 0, func(ctx context.Context) (content, error) {
		c := f.make(req.WithContext(ctx), p)
		return c, c.err
	})
	c.err = err
	return c
}

func (f *frame) make(req *http.Request, p consolePage) content {
	data, err := p.data(req)
	if err != nil {
		return content{err: err}
	}
	return f.fill(req, p, data)
}

// fill makes a page's content of its data.
func (f *frame) fill(req *http.Request, p consolePage, data any) content {
	c := content{title: p.title, data: data}
	if t, ok := data.(titled); ok && c.title == "" {
		c.title = t.Title()
	}
	v := view{Title: c.title, Page: p, Who: auth.Who(req.Context()), Now: f.now(), Data: data}
	var b bytes.Buffer
	if err := templates()[p.template].ExecuteTemplate(&b, "content", v); err != nil {
		return content{err: fmt.Errorf("make the page: %w", err)}
	}
	c.html = template.HTML(b.String())
	return c
}

// render answers with a page that shows data.
func (f *frame) render(w http.ResponseWriter, req *http.Request, status int, p consolePage, data any) {
	f.answer(w, req, status, p, f.fill(req, p, data))
}

// answer answers with a page whose content is made.
func (f *frame) answer(w http.ResponseWriter, req *http.Request, status int, p consolePage, c content) {
	if page, ok := f.page(w, req, p, c); ok {
		w.WriteHeader(status)
		_, _ = w.Write(page) // a client that went away needs no answer
	}
}

// begin answers with a page that shows data up to a mark in it, and returns what stands
// behind the mark. ok is false if it answered otherwise.
func (f *frame) begin(w http.ResponseWriter, req *http.Request, p consolePage, data any, mark string) (rest []byte, ok bool) {
	page, ok := f.page(w, req, p, f.fill(req, p, data))
	if !ok {
		return nil, false
	}
	first, rest, _ := bytes.Cut(page, []byte(mark))
	_, _ = w.Write(first) // likewise
	return rest, true
}

// page makes a page and sets the header for it. If it cannot be made, it answers so.
func (f *frame) page(w http.ResponseWriter, req *http.Request, p consolePage, c content) (page []byte, ok bool) {
	v := view{Title: c.title, Page: p, Who: auth.Who(req.Context()), Now: f.now(), Data: c.data, Content: c.html}
	if v.Who.Role > 0 {
		status := f.api.Status(req.Context())
		v.Bar, v.Replicas = barOf(status, f.now()), router.SaysReplicas(status.Replicas)
	}
	for _, other := range f.pages {
		if other.nav && v.Who.Role >= other.role {
			v.Pages = append(v.Pages, other)
		}
	}
	var b bytes.Buffer
	err := c.err
	if err == nil {
		err = templates()[p.template].ExecuteTemplate(&b, "layout", v)
	}
	if err != nil {
		f.logger.Error("a page could not be made", "path", req.URL.Path, "err", err)
		http.Error(w, "this page could not be made; the server's log says why", http.StatusInternalServerError)
		return nil, false
	}
	if n, ok := c.data.(interface{ styleNonce() string }); ok {
		w.Header().Set("Content-Security-Policy", strings.Replace(policy, "style-src 'self'", "style-src 'self' 'nonce-"+n.styleNonce()+"'", 1))
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	return b.Bytes(), true
}
