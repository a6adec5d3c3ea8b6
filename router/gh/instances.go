package gh

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"switchyard/router"
)

// Host is that of GitHub's pages: of github.com, of a tenant of ghe.com, or of
// an Enterprise Server, as router.Repo has it.
func (c *Client) Host() string {
	host := strings.ToLower(c.base.Host)
	if host == "api.github.com" || strings.HasSuffix(host, ".ghe.com") {
		return strings.TrimPrefix(host, "api.")
	}
	return host
}

// Instances implements router.GitHub: the only one needs no name.
func (c *Client) Instances() []router.Instance { return nil }

// An Instances is several GitHubs, each with a client, as one router.GitHub: it
// finds the one that is asked by the instance in an ID, or by a host, and
// translates IDs. Its methods are safe for concurrent use.
type Instances struct{ list []instance }

type instance struct {
	router.Instance
	client *Client
}

var _ router.GitHub = (*Instances)(nil)

// NewInstances returns one of the first GitHub alone; Add adds others.
func NewInstances(first *Client) *Instances {
	return &Instances{[]instance{{router.Instance{Host: first.Host()}, first}}}
}

// Add adds a GitHub, before the first use. The number is from 1 to
// router.MaxInstance; it and the host are nobody else's.
func (g *Instances) Add(number int64, c *Client) error {
	if number < 1 || number > router.MaxInstance {
		return fmt.Errorf("number %d of %s: want 1 to %d", number, c.Host(), router.MaxInstance)
	}
	for _, in := range g.list {
		switch {
		case in.Host == c.Host():
			return fmt.Errorf("%s is there twice", in.Host)
		case in.Number == number:
			return fmt.Errorf("%s and %s both have number %d", in.Host, c.Host(), number)
		}
	}
	g.list = append(g.list, instance{router.Instance{Number: number, Host: c.Host()}, c})
	return nil
}

// Instances implements router.GitHub.
func (g *Instances) Instances() []router.Instance {
	var list []router.Instance
	for _, in := range g.list {
		list = append(list, in.Instance)
	}
	return list
}

// at finds an instance by a host; "" is the first's, for what was recorded
// before there were others.
func (g *Instances) at(host string) (instance, error) {
	for _, in := range g.list {
		if in.Host == host || host == "" {
			return in, nil
		}
	}
	return instance{}, missing(host)
}

// of finds the instance that an ID is of.
func (g *Instances) of(id int64) (instance, error) {
	for _, in := range g.list {
		if in.Number == router.InstanceOf(id) {
			return in, nil
		}
	}
	return instance{}, missing(fmt.Sprintf("with number %d", router.InstanceOf(id)))
}

func missing(which string) error {
	return &router.FixError{
		Fix: "configure it again, as it was, until its jobs have ended",
		Err: fmt.Errorf("the GitHub %s is not configured any more", which),
	}
}

// said adds to an error which of several GitHubs it is of.
func (in instance) said(err error) error {
	if err == nil || in.Number == 0 {
		return err
	}
	return fmt.Errorf("%s: %w", in.Host, err)
}

// known makes what an instance says of a job fit for the books.
func (in instance) known(d router.Delivery) router.Delivery {
	d.Job.ID, d.Job.RunID, d.Job.Repo.Host = in.ID(d.Job.ID), in.ID(d.Job.RunID), in.Host
	return d
}

// RunnerConfig implements router.GitHub.
func (g *Instances) RunnerConfig(ctx context.Context, r router.ConfigRequest) (c router.RunnerConfig, err error) {
	in, err := g.at(r.Repo.Host)
	if err == nil {
		c, err = in.client.RunnerConfig(ctx, r)
	}
	return c, in.said(err)
}

// RegistrationToken implements router.GitHub.
func (g *Instances) RegistrationToken(ctx context.Context, r router.ConfigRequest) (reg router.Registration, err error) {
	in, err := g.at(r.Repo.Host)
	if err == nil {
		reg, err = in.client.RegistrationToken(ctx, r)
	}
	return reg, in.said(err)
}

// Run implements router.GitHub.
func (g *Instances) Run(ctx context.Context, repo router.Repo, runID int64) (run router.Run, err error) {
	in, err := g.of(runID)
	if err == nil {
		run, err = in.client.Run(ctx, repo, router.GitHubID(runID))
	}
	return run, in.said(err)
}

// Admit implements router.GitHub.
func (g *Instances) Admit(ctx context.Context, a router.Admission) error {
	in, err := g.at(a.Target.Host)
	if err == nil {
		err = in.client.Admit(ctx, a)
	}
	return in.said(err)
}

// Job implements router.GitHub.
func (g *Instances) Job(ctx context.Context, repo router.Repo, id int64) (d router.Delivery, err error) {
	in, err := g.of(id)
	if err == nil {
		d, err = in.client.Job(ctx, repo, router.GitHubID(id))
	}
	if err != nil {
		return d, in.said(err)
	}
	return in.known(d), nil
}

// Runner implements router.GitHub.
func (g *Instances) Runner(ctx context.Context, t router.Target, name string) (r router.GitHubRunner, err error) {
	in, err := g.at(t.Host)
	if err == nil {
		r, err = in.client.Runner(ctx, t, name)
	}
	return r, in.said(err)
}

// Runners implements router.GitHub.
func (g *Instances) Runners(ctx context.Context, t router.Target) (list []router.GitHubRunner, err error) {
	in, err := g.at(t.Host)
	if err == nil {
		list, err = in.client.Runners(ctx, t)
	}
	return list, in.said(err)
}

// RemoveRunner implements router.GitHub.
func (g *Instances) RemoveRunner(ctx context.Context, t router.Target, id int64) error {
	in, err := g.at(t.Host)
	if err == nil {
		err = in.client.RemoveRunner(ctx, t, id)
	}
	return in.said(err)
}

// OwnHooks implements router.Webhooks.
func (g *Instances) OwnHooks() []router.Hook {
	var hooks []router.Hook
	for _, in := range g.list {
		for _, h := range in.client.OwnHooks() {
			h.ID = in.ID(h.ID)
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// Deliveries implements router.Webhooks.
func (g *Instances) Deliveries(ctx context.Context, h router.Hook, cursor string) (page []router.SentDelivery, next string, err error) {
	in, err := g.of(h.ID)
	h.ID = router.GitHubID(h.ID)
	if err == nil {
		page, next, err = in.client.Deliveries(ctx, h, cursor)
	}
	return page, next, in.said(err)
}

// Redeliver implements router.Webhooks.
func (g *Instances) Redeliver(ctx context.Context, h router.Hook, deliveryID int64) error {
	in, err := g.of(h.ID)
	h.ID = router.GitHubID(h.ID)
	if err == nil {
		err = in.client.Redeliver(ctx, h, deliveryID)
	}
	return in.said(err)
}

// Sees implements router.Listings.
func (g *Instances) Sees(ctx context.Context, repo router.Repo) (sees bool, err error) {
	in, err := g.at(repo.Host)
	if err == nil {
		sees, err = in.client.Sees(ctx, repo)
	}
	return sees, in.said(err)
}

// Unfinished implements router.Listings.
func (g *Instances) Unfinished(ctx context.Context, repo router.Repo, calls int, each func(router.Delivery) error) (did router.Unfinished, err error) {
	in, err := g.at(repo.Host)
	if err == nil {
		did, err = in.client.Unfinished(ctx, repo, calls, func(d router.Delivery) error { return each(in.known(d)) })
	}
	return did, in.said(err)
}

// RunJobs implements router.Listings.
func (g *Instances) RunJobs(ctx context.Context, repo router.Repo, runID int64, each func(router.Delivery) error) error {
	in, err := g.of(runID)
	if err == nil {
		err = in.client.RunJobs(ctx, repo, router.GitHubID(runID), func(d router.Delivery) error { return each(in.known(d)) })
	}
	return in.said(err)
}

// Repositories implements router.Listings. What one GitHub does not show keeps
// it from no other.
func (g *Instances) Repositories(ctx context.Context, each func(router.Repo) error) error {
	var errs []error
	for _, in := range g.list {
		errs = append(errs, in.said(in.client.Repositories(ctx, func(r router.Repo) error {
			r.Host = in.Host
			return each(r)
		})))
	}
	return errors.Join(errs...)
}

// Notice implements router.Notices.
func (g *Instances) Notice(ctx context.Context, n router.Notice, id int64) (said int64, err error) {
	in, err := g.of(n.JobID)
	n.JobID = router.GitHubID(n.JobID)
	if err == nil {
		said, err = in.client.Notice(ctx, n, id)
	}
	return said, in.said(err)
}

// FindNotice implements router.Notices.
func (g *Instances) FindNotice(ctx context.Context, n router.Notice) (id int64, err error) {
	in, err := g.of(n.JobID)
	n.JobID = router.GitHubID(n.JobID)
	if err == nil {
		id, err = in.client.FindNotice(ctx, n)
	}
	return id, in.said(err)
}

// CancelRun implements router.Notices.
func (g *Instances) CancelRun(ctx context.Context, repo router.Repo, runID int64) error {
	in, err := g.of(runID)
	if err == nil {
		err = in.client.CancelRun(ctx, repo, router.GitHubID(runID))
	}
	return in.said(err)
}

// Budget returns what may be asked of each GitHub now, as Client.Budget does.
func (g *Instances) Budget() []router.Budget {
	var all []router.Budget
	for _, in := range g.list {
		for _, b := range in.client.Budget() {
			if in.Number != 0 {
				b.Login += " at " + in.Host
			}
			all = append(all, b)
		}
	}
	return all
}
