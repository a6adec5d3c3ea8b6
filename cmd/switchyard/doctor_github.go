package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
)

const recentDeliveries = 20 // that are counted

// lookAtGitHub asks GitHub about the login, the App, and its deliveries.
func (d *doctor) lookAtGitHub(ctx context.Context, e *examination) {
	if d.github == nil {
		return
	}
	login, err := d.github.Login(ctx)
	if err != nil {
		e.failed("github-login", err)
		return
	}
	if login.Ahead.Abs() > clockOff {
		e.add("clock", saysAhead(login.Ahead, "GitHub"), "set this machine's clock by NTP")
	}
	if app := login.App; app != nil {
		d.lookAtApp(e, login.Name, app)
	}
	hooks := d.github.OwnHooks()
	for _, p := range d.polls {
		if !slices.ContainsFunc(hooks, func(h router.Hook) bool { return h.Key() == p.Hook.Key() }) {
			hooks = append(hooks, p.Hook)
		}
	}
	for _, h := range hooks {
		d.lookAtDeliveries(ctx, e, h, login.App)
	}
}

func (d *doctor) lookAtApp(e *examination, name string, app *gh.AppState) {
	const page = "on the App's settings page on GitHub, Permissions & events"
	needs := []permission{{"actions", "read", "Repository: Actions", "the state of jobs and runs"}}
	if d.set != nil {
		needs = permissionsFor(d.set)
	}
	if lack := lacking(needs, app.Permissions); len(lack) > 0 {
		e.add("app-permissions", name+" lacks "+named(lack), "add it "+page+", and have each owner accept it")
	}
	if !slices.Contains(app.Events, jobEvent) {
		e.add("app-events", name+" does not subscribe to the event Workflow job, so no job is told of", "subscribe to it "+page)
	}
	hook, err := url.Parse(app.HookURL)
	switch {
	case app.HookURL == "" || err != nil:
		e.add("app-webhook", name+" has no webhook", "make it Active on the App's settings page, with the URL https://<your proxy>/webhooks/github")
	case d.serve.intake.receives() && !strings.HasSuffix(hook.Path, "/webhooks/github"):
		e.add("app-webhook", fmt.Sprintf("the deliveries of %s go to %s, whose path is not that of Switchyard", name, app.HookURL), "end the webhook's URL on the App's settings page with /webhooks/github")
	case d.serve.intake.receives() && app.HookType == "form":
		e.add("app-webhook", "the deliveries of "+name+" are forms, which Switchyard refuses", "set the webhook's content type to application/json")
	}
	if len(app.Installations) == 0 {
		e.add("app-installation", name+" is not installed", "install it for each organization or account whose jobs get runners: "+app.Page+"/installations/new")
	}
	for _, in := range app.Installations {
		what := "the installation of " + name + " for " + in.Owner
		lack := slices.DeleteFunc(lacking(needs, in.Permissions), func(p permission) bool {
			// What the App itself lacks is said; a user has no permissions of an organization.
			return slices.Contains(lacking(needs, app.Permissions), p) || !in.Organization && strings.HasPrefix(p.name, "organization_")
		})
		switch {
		case in.Suspended:
			e.add("app-installation", what+" is suspended", "unsuspend it: "+in.Page)
		case len(lack) > 0:
			e.add("app-installation", in.Owner+" has not accepted that "+name+" may have "+named(lack), "accept it: "+in.Page)
		case slices.Contains(app.Events, jobEvent) && !slices.Contains(in.Events, jobEvent):
			e.add("app-installation", in.Owner+" has not accepted that "+name+" is told of the event Workflow job", "accept it: "+in.Page)
		}
	}
}

// lookAtDeliveries asks GitHub what became of a webhook's last deliveries.
func (d *doctor) lookAtDeliveries(ctx context.Context, e *examination, h router.Hook, app *gh.AppState) {
	const check = "deliveries"
	list, _, err := d.github.Deliveries(ctx, h, "")
	switch {
	case err != nil:
		e.failed(check, err)
		return
	case !d.serve.intake.receives():
		return // they may well fail
	case len(list) == 0:
		e.skip(check, "GitHub lists none of the last three days: start a job")
		return
	}
	list = list[:min(len(list), recentDeliveries)]
	newest, lost := list[0], 0
	for _, one := range list {
		if !one.OK {
			lost++
		}
	}
	if newest.OK {
		return // earlier ones are redelivered, and the server's status says when they are not
	}
	to := ""
	if app != nil {
		to = " to " + app.HookURL
	}
	says := fmt.Sprintf("GitHub's newest delivery%s, at %s, ended with %q, as did %d of the last %d", to, newest.At.UTC().Format(time.RFC3339), newest.Said, lost, len(list))
	mend := "see that GitHub reaches that address, through proxies and firewalls, and that its certificate is valid"
	switch code := strings.TrimPrefix(newest.Said, "Invalid HTTP Response: "); code {
	case "401":
		mend = "give serve the secret of that webhook: --webhook-secret-file"
	case "404", "405":
		mend = "let the URL end with /webhooks/github, and lead to --listen of the server"
	case "413", "415", "400":
		mend = "set the webhook's content type to application/json, and let proxies pass bodies of 25 MB on as they are"
	case "500", "502", "503", "504":
		mend = "see what the server and the proxy before it say: switchyard status"
	}
	e.add(check, says, mend)
}

// lookAtVersions asks GitHub how long it supports the runners that the rules start, and those
// that the database has seen.
func (d *doctor) lookAtVersions(ctx context.Context, e *examination) {
	if d.github == nil || d.set == nil {
		return
	}
	uses, err := recordedVersions(ctx, d.serve.db)
	if err != nil {
		uses = nil // lookAtDatabase says so
	}
	var some *router.Repo // one that GitHub shows
	asking, enough := context.WithCancel(ctx)
	defer enough()
	err = d.github.Repositories(asking, func(r router.Repo) error {
		if some == nil {
			some = &r
		}
		enough()
		return nil
	})
	if some != nil {
		for _, x := range d.placements() {
			if v := namedVersion(x.Placement, d.specs); v != "" && x.Placement.Dispatch == "" && x.Placement.Runner.Registration != "own" {
				uses = append(uses, versionUse{x.Rule, router.TargetOf(*some, x.Placement.Runner), v})
			}
		}
	} else if err != nil {
		return // lookAtGitHub says so
	}
	found, err := checkVersions(ctx, d.github, d.set, uses, time.Now())
	if errors.As(err, new(*router.FixError)) {
		e.skip("runner-version", err.Error()) // lookAtGitHub says which permission is missing
	} else if err != nil {
		e.failed("runner-version", err)
	}
	for _, f := range found {
		says, mend, _ := strings.Cut(f.Message, ": name a newer runner")
		e.add("runner-version", says, "name a newer runner"+mend)
	}
}
