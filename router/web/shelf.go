package web

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	shareFor  = time.Second // as pages show ages
	maxShared = 64
)

// sharedPages are those that many have open at once, and whose content depends
// on nothing of who looks but role and scope. While anyone follows the stream,
// which has all of them ask for the page at the same time, the content is made
// once for all, until something changes or a second is over.
var sharedPages = []string{"/", "/jobs", "/jobs/{id}", "/runners"}

// A content is what stands in a page's frame.
type content struct {
	title string
	data  any
	html  template.HTML // made of the data by a template
	err   error
}

// A shelf keeps contents. The zero value is empty.
type shelf struct {
	mu   sync.Mutex
	made map[string]*making
}

type making struct {
	at   time.Time
	once func() content
}

// get returns what make makes, or what it made under the same name within shareFor.
func (s *shelf) get(name string, now time.Time, make func() content) content {
	s.mu.Lock()
	m := s.made[name]
	if m == nil || now.Sub(m.at) >= shareFor || now.Before(m.at) {
		if s.made == nil || len(s.made) >= maxShared {
			s.made = map[string]*making{}
		}
		m = &making{now, sync.OnceValue(make)}
		s.made[name] = m
	}
	s.mu.Unlock()
	return m.once()
}

// clear has all be made anew, as who changed something wants to see it.
func (s *shelf) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = nil
}

// content makes a page's content for a request, or takes what was made for another.
func (a *api) content(req *http.Request, p consolePage) content {
	position, followed := a.hub.position()
	if !followed || !slices.Contains(sharedPages, p.path) || req.Method != http.MethodGet {
		return a.make(req, p)
	}
	w := who(req.Context())
	scope := "all"
	if w.Scope != nil {
		scope = strings.Join(w.Scope, " ")
	}
	name := fmt.Sprintf("%d %d %q %s", position, w.Role, scope, req.URL.RequestURI())
	return a.shelf.get(name, a.Now(), func() content {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), readTimeout) // others wait for it
		defer cancel()
		return a.make(req.WithContext(ctx), p)
	})
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
	v := view{Title: c.title, Page: p, Who: who(req.Context()), Now: a.Now(), Data: data}
	var b bytes.Buffer
	if err := templates[p.template].ExecuteTemplate(&b, "content", v); err != nil {
		return content{err: fmt.Errorf("make the page: %w", err)}
	}
	c.html = template.HTML(b.String())
	return c
}
