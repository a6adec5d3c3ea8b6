package web

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"slices"

	"switchyard/router/web/auth"
)

// sharedPages are those that many have open at once, and whose content depends
// on nothing of who looks but role and scope. While anyone follows the stream,
// which has all of them ask for the page at the same time, the content is made
// once for all, until something changes or sharedFresh is over.
var sharedPages = []string{"/", "/jobs", "/jobs/{id}", "/runners"}

// A content is what stands in a page's frame.
type content struct {
	title string
	data  any
	html  template.HTML // made of the data by a template
	err   error
}

// content makes a page's content for a request, or takes what was made for another.
func (a *api) content(req *http.Request, p consolePage) content {
	position, followed := a.hub.position()
	w := auth.Who(req.Context())
	if !followed || !slices.Contains(sharedPages, p.path) || req.Method != http.MethodGet || a.turns.crowded(w.Name) {
		return a.make(req, p)
	}
	key := fmt.Sprintf("%d %d %s %s", position, w.Role, scopeKey(w.Scope), req.URL.RequestURI())
	c, err := a.shelf.get(req.Context(), key, a.Now, 0, func(ctx context.Context) (content, error) {
		c := a.make(req.WithContext(ctx), p)
		return c, c.err
	})
	c.err = err
	return c
}

func (a *api) make(req *http.Request, p consolePage) content {
	data, err := p.data(req)
	if err != nil {
		return content{err: err}
	}
	return a.fill(req, p, data)
}

// fill makes a page's content of its data.
func (a *api) fill(req *http.Request, p consolePage, data any) content {
	c := content{title: p.title, data: data}
	if t, ok := data.(titled); ok && c.title == "" {
		c.title = t.Title()
	}
	v := view{Title: c.title, Page: p, Who: auth.Who(req.Context()), Now: a.Now(), Data: data}
	var b bytes.Buffer
	if err := templates[p.template].ExecuteTemplate(&b, "content", v); err != nil {
		return content{err: fmt.Errorf("make the page: %w", err)}
	}
	c.html = template.HTML(b.String())
	return c
}
