package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
)

// newAppFile has GitHub's answer about a new App until the files below are made of it.
const newAppFile = "app.json"

// appFiles are the App's: its ID, its key and its webhook's secret.
var appFiles = []string{"app.id", "app.pem", "webhook.secret"}

// A storedApp is newAppFile.
type storedApp struct {
	ID            int64  `json:"id"`
	Page          string `json:"page"`
	Key           string `json:"key"`
	WebhookSecret string `json:"webhook_secret"`
}

// makeApp has the App made, unless its files are there, and stores it.
func (f *initFlags) makeApp(ctx context.Context, out io.Writer, m gh.Manifest) error {
	if f.has(appFiles...) {
		_, err := fmt.Fprintln(out, "the App's files are there already")
		return errors.Join(err, f.remove(newAppFile))
	}
	if !f.has(newAppFile) {
		for _, name := range appFiles {
			if f.has(name) {
				return fmt.Errorf("%s is there, but not all of %v: move it away to make a new App, or add the others from its settings page", f.path(name), appFiles)
			}
		}
		api, err := gh.APIOf(f.github)
		if err != nil {
			return err
		}
		owner, organization := f.name()
		if !organization {
			owner = ""
		}
		made, err := appFromPage(ctx, out, f.github, owner, m, func(ctx context.Context, code string) (gh.MadeApp, error) {
			made, err := gh.MakeApp(ctx, api, code)
			if err != nil {
				return made, err
			}
			// GitHub gives it once: it is stored whole before anything else is done.
			text, err := json.Marshal(storedApp{made.ID, made.Page, string(made.Key), string(made.WebhookSecret)})
			if err == nil {
				err = f.create(newAppFile, string(text), 0o600)
			}
			return made, err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "GitHub has made the App %d: %s\n", made.ID, router.Printable(made.Page))
	}
	text, err := os.ReadFile(f.path(newAppFile))
	if err != nil {
		return err
	}
	var made storedApp
	if err := json.Unmarshal(text, &made); err != nil {
		return fmt.Errorf("%s: %w", f.path(newAppFile), err)
	}
	for _, file := range [][2]string{{"app.page", made.Page}, {"app.id", strconv.FormatInt(made.ID, 10)}, {"app.pem", made.Key}, {"webhook.secret", made.WebhookSecret}} {
		if err := f.write(out, file[0], file[1], 0o600); err != nil {
			return err
		}
	}
	return f.remove(newAppFile)
}

func (f *initFlags) remove(name string) error {
	if err := os.Remove(f.path(name)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// An appPage is the page with one button that makes the App, for one browser on this machine.
type appPage struct {
	host     string // of the page
	path     string // with a secret, as other users of the machine reach the host, too
	state    string // which GitHub hands back, so that nobody else's App is taken
	post     string // where the button leads
	manifest gh.Manifest
	make     func(ctx context.Context, code string) (gh.MadeApp, error)

	turn sync.Mutex
	made chan gh.MadeApp // size 1; gets the App
}

// appFromPage serves the page until GitHub has made the App, or ctx ends.
func appFromPage(ctx context.Context, out io.Writer, site, organization string, m gh.Manifest, makeApp func(context.Context, string) (gh.MadeApp, error)) (gh.MadeApp, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return gh.MadeApp{}, err
	}
	p := &appPage{host: l.Addr().String(), path: "/" + rand.Text() + "/", state: rand.Text(), make: makeApp, made: make(chan gh.MadeApp, 1)}
	p.manifest = m
	p.manifest.RedirectURL = "http://" + p.host + p.path + "made"
	p.post = gh.NewAppPage(site, organization, p.state)
	server := &http.Server{Handler: p, ReadHeaderTimeout: readyTimeout, ReadTimeout: readyTimeout, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		// The browser gets the last page.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
		defer cancel()
		if server.Shutdown(closing) != nil {
			_ = server.Close()
		}
		<-served
	}()
	_, port, _ := net.SplitHostPort(p.host)
	fmt.Fprintf(out, "\nopen http://%s%s in a browser on this machine, and press the button there.\n"+
		"From another machine: ssh -L %s:127.0.0.1:%s THIS_MACHINE, and the same address there.\n", p.host, p.path, port, port)
	select {
	case made := <-p.made:
		return made, nil
	case <-ctx.Done():
		return gh.MadeApp{}, fmt.Errorf("wait for the App: %w", context.Cause(ctx))
	case err := <-served:
		served <- err
		return gh.MadeApp{}, err
	}
}

var appPageText = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>Switchyard's GitHub App</title>
{{- if .Made}}
<h1>The App is made</h1>
<p>Its key and its webhook's secret are stored. Now <a href="{{.Made}}/installations/new">install it</a>, with the repositories that get runners, and go on in the terminal.</p>
{{- else}}
<h1>Make Switchyard's GitHub App</h1>
{{with .Said}}<p><strong>{{.}}</strong></p>{{end}}
<p>GitHub shows its name, which you may change, and makes it with these permissions: {{range $name, $level := .Manifest.Permissions}}{{$name}}: {{$level}}; {{end}}and the event{{range .Manifest.Events}} {{.}}{{end}}.
Its deliveries go to {{.Manifest.Hook.URL}}.</p>
<form method="post" action="{{.Post}}"><input type="hidden" name="manifest" value="{{.Text}}"><button>Make the App on GitHub</button></form>
{{- end}}
</html>
`))

func (p *appPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' "+p.post[:len(p.post)-len("?state=")-len(p.state)])
	switch {
	case r.Host != p.host: // a page of somebody else's whose name leads here
		http.Error(w, "this page is for http://"+p.host, http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet:
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
	case r.URL.Path == p.path:
		p.show(w, http.StatusOK, "", "")
	case r.URL.Path == p.path+"made":
		p.complete(w, r)
	default:
		http.NotFound(w, r)
	}
}

// complete takes what GitHub sent the browser back with.
func (p *appPage) complete(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(p.state)) != 1 {
		p.show(w, http.StatusBadRequest, "", "GitHub did not come from this page: its state is another. Press the button.")
		return
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	made, err := p.make(context.WithoutCancel(r.Context()), q.Get("code")) // the code is good once
	if err != nil {
		p.show(w, http.StatusBadGateway, "", err.Error())
		return
	}
	select {
	case p.made <- made:
	default: // a second App, by pressing the button twice: the first one is stored
	}
	p.show(w, http.StatusOK, cmp.Or(made.Page, p.post), "")
}

func (p *appPage) show(w http.ResponseWriter, status int, made, said string) {
	text, err := json.Marshal(p.manifest)
	if err != nil {
		panic(err) // it is text alone
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = appPageText.Execute(w, struct {
		Made, Said, Post, Text string
		Manifest               gh.Manifest
	}{made, said, p.post, string(text), p.manifest})
}
