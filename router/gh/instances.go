package gh

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"switchyard/router"
)

// Host returns the host of GitHub's pages: github.com, a tenant of ghe.com, or an
// Enterprise Server, as in router.Repo.
func (c *caller) Host() string {
	host := strings.ToLower(c.base.Host)
	if host == "api.github.com" || strings.HasSuffix(host, ".ghe.com") {
		return strings.TrimPrefix(host, "api.")
	}
	return host
}

// Instances implements router.GitHub: the only one needs no name.
func (c *Client) Instances() []router.Instance { return nil }

// An Instances is several GitHubs, each with a client, as one router.GitHub: it
// finds the one to ask by the instance in an ID, or by a host, and translates IDs. Its
// methods are those of router.GitHub, and safe for concurrent use.
type Instances struct{ list []instance }

type instance struct {
	router.Instance
	client *Client
	err    error // there is no such instance
}

var _ router.GitHub = (*Instances)(nil)

// NewInstances returns an Instances of one GitHub; Add adds others.
func NewInstances(first *Client) *Instances {
	return &Instances{[]instance{{Instance: router.Instance{Host: first.Host()}, client: first}}}
}

// Add adds a GitHub, before the first use. The number must be from 1 to
// router.MaxInstance; no other GitHub may have it or the host.
func (g *Instances) Add(number int64, c *Client) error {
	if number < 1 || number > router.MaxInstance {
		return fmt.Errorf("number %d of %s: want 1 to %d", number, c.Host(), router.MaxInstance)
	}
	for _, in := range g.list {
		switch {
		case in.Host == c.Host():
			return fmt.Errorf("%s is listed twice", in.Host)
		case in.Number == number:
			return fmt.Errorf("%s and %s both have number %d", in.Host, c.Host(), number)
		}
	}
	g.list = append(g.list, instance{Instance: router.Instance{Number: number, Host: c.Host()}, client: c})
	return nil
}

func (g *Instances) Instances() []router.Instance {
	var list []router.Instance
	for _, in := range g.list {
		list = append(list, in.Instance)
	}
	return list
}

// at returns the instance with a host; "" is the first one, for what was recorded
// before there were others.
func (g *Instances) at(host string) instance {
	for _, in := range g.list {
		if in.Host == host || host == "" {
			return in
		}
	}
	return missing(host)
}

// of returns the instance that an ID belongs to.
func (g *Instances) of(id int64) instance {
	for _, in := range g.list {
		if in.Number == router.InstanceOf(id) {
			return in
		}
	}
	return missing(fmt.Sprintf("with number %d", router.InstanceOf(id)))
}

func missing(which string) instance {
	return instance{err: &router.FixError{
		Fix: "configure it again, as it was, until its jobs have ended",
		Err: fmt.Errorf("the GitHub %s is not configured any more", which),
	}}
}

// from returns an instance's answer. Errors name the instance, except the first one.
func from[T any](in instance, ask func(c *Client) (T, error)) (answer T, err error) {
	if err = in.err; err == nil {
		answer, err = ask(in.client)
	}
	if err != nil && in.Number != 0 {
		err = fmt.Errorf("%s: %w", in.Host, err)
	}
	return answer, err
}

// do is from for requests without an answer.
func do(in instance, ask func(c *Client) error) error {
	_, err := from(in, func(c *Client) (struct{}, error) { return struct{}{}, ask(c) })
	return err
}

// known returns a delivery with the host and IDs that it has in the database.
func (in instance) known(d router.Delivery) router.Delivery {
	d.Job.ID, d.Job.RunID, d.Job.Repo.Host = in.ID(d.Job.ID), in.ID(d.Job.RunID), in.Host
	return d
}

func (g *Instances) RunnerConfig(ctx context.Context, r router.ConfigRequest) (router.RunnerConfig, error) {
	return from(g.at(r.Repo.Host), func(c *Client) (router.RunnerConfig, error) { return c.RunnerConfig(ctx, r) })
}

func (g *Instances) RegistrationToken(ctx context.Context, r router.ConfigRequest) (router.Registration, error) {
	return from(g.at(r.Repo.Host), func(c *Client) (router.Registration, error) { return c.RegistrationToken(ctx, r) })
}

func (g *Instances) Run(ctx context.Context, repo router.Repo, runID int64) (router.Run, error) {
	return from(g.of(runID), func(c *Client) (router.Run, error) { return c.Run(ctx, repo, router.GitHubID(runID)) })
}

func (g *Instances) Admit(ctx context.Context, a router.Admission) error {
	return do(g.at(a.Target.Host), func(c *Client) error { return c.Admit(ctx, a) })
}

func (g *Instances) Job(ctx context.Context, repo router.Repo, id int64) (router.Delivery, error) {
	in := g.of(id)
	return from(in, func(c *Client) (router.Delivery, error) {
		d, err := c.Job(ctx, repo, router.GitHubID(id))
		if err == nil {
			d = in.known(d)
		}
		return d, err
	})
}

func (g *Instances) Runner(ctx context.Context, t router.Target, name string) (router.GitHubRunner, error) {
	return from(g.at(t.Host), func(c *Client) (router.GitHubRunner, error) { return c.Runner(ctx, t, name) })
}

func (g *Instances) Runners(ctx context.Context, t router.Target) ([]router.GitHubRunner, error) {
	return from(g.at(t.Host), func(c *Client) ([]router.GitHubRunner, error) { return c.Runners(ctx, t) })
}

func (g *Instances) GroupAccess(ctx context.Context, t router.Target, group router.RunnerGroup, repo router.Repo) (router.GroupAccess, error) {
	return from(g.at(t.Host), func(c *Client) (router.GroupAccess, error) { return c.GroupAccess(ctx, t, group, repo) })
}

func (g *Instances) VersionEnd(ctx context.Context, t router.Target, v router.RunnerVersion) (router.VersionEnd, error) {
	return from(g.at(t.Host), func(c *Client) (router.VersionEnd, error) { return c.VersionEnd(ctx, t, v) })
}

func (g *Instances) RemoveRunner(ctx context.Context, t router.Target, id int64) error {
	return do(g.at(t.Host), func(c *Client) error { return c.RemoveRunner(ctx, t, id) })
}

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

func (g *Instances) Deliveries(ctx context.Context, h router.Hook, cursor string) (page []router.SentDelivery, next string, err error) {
	in := g.of(h.ID)
	h.ID = router.GitHubID(h.ID)
	page, err = from(in, func(c *Client) (page []router.SentDelivery, err error) {
		page, next, err = c.Deliveries(ctx, h, cursor)
		return page, err
	})
	return page, next, err
}

func (g *Instances) Delivery(ctx context.Context, h router.Hook, deliveryID int64) ([]byte, error) {
	in := g.of(h.ID)
	h.ID = router.GitHubID(h.ID)
	return from(in, func(c *Client) ([]byte, error) { return c.Delivery(ctx, h, deliveryID) })
}

func (g *Instances) DeliveryLimit(h router.Hook) (limit router.RateLimit, keptPercent int) {
	in := g.of(h.ID)
	if in.err != nil {
		return router.RateLimit{}, 0
	}
	h.ID = router.GitHubID(h.ID)
	return in.client.DeliveryLimit(h)
}

func (g *Instances) Redeliver(ctx context.Context, h router.Hook, deliveryID int64) error {
	in := g.of(h.ID)
	h.ID = router.GitHubID(h.ID)
	return do(in, func(c *Client) error { return c.Redeliver(ctx, h, deliveryID) })
}

func (g *Instances) Sees(ctx context.Context, repo router.Repo) (bool, error) {
	return from(g.at(repo.Host), func(c *Client) (bool, error) { return c.Sees(ctx, repo) })
}

func (g *Instances) Unfinished(ctx context.Context, repo router.Repo, calls int, each func(router.Delivery) error) (router.Unfinished, error) {
	in := g.at(repo.Host)
	return from(in, func(c *Client) (router.Unfinished, error) {
		return c.Unfinished(ctx, repo, calls, func(d router.Delivery) error { return each(in.known(d)) })
	})
}

func (g *Instances) RunJobs(ctx context.Context, repo router.Repo, runID int64, each func(router.Delivery) error) error {
	in := g.of(runID)
	return do(in, func(c *Client) error {
		return c.RunJobs(ctx, repo, router.GitHubID(runID), func(d router.Delivery) error { return each(in.known(d)) })
	})
}

// Repositories implements router.Listings. One GitHub that fails does not keep the
// others from being listed.
func (g *Instances) Repositories(ctx context.Context, each func(router.Repo) error) error {
	var errs []error
	for _, in := range g.list {
		errs = append(errs, do(in, func(c *Client) error {
			return c.Repositories(ctx, func(r router.Repo) error {
				r.Host = in.Host
				return each(r)
			})
		}))
	}
	return errors.Join(errs...)
}

func (g *Instances) Notice(ctx context.Context, n router.Notice, id int64) (int64, error) {
	in := g.of(n.JobID)
	n.JobID = router.GitHubID(n.JobID)
	return from(in, func(c *Client) (int64, error) { return c.Notice(ctx, n, id) })
}

func (g *Instances) FindNotice(ctx context.Context, n router.Notice) (int64, error) {
	in := g.of(n.JobID)
	n.JobID = router.GitHubID(n.JobID)
	return from(in, func(c *Client) (int64, error) { return c.FindNotice(ctx, n) })
}

func (g *Instances) CancelRun(ctx context.Context, repo router.Repo, runID int64) error {
	return do(g.of(runID), func(c *Client) error { return c.CancelRun(ctx, repo, router.GitHubID(runID)) })
}

func (g *Instances) Variable(ctx context.Context, v router.Variable) (string, error) {
	return from(g.at(v.Host), func(c *Client) (string, error) { return c.Variable(ctx, v) })
}

func (g *Instances) SetVariable(ctx context.Context, v router.Variable, value string) error {
	return do(g.at(v.Host), func(c *Client) error { return c.SetVariable(ctx, v, value) })
}

func (g *Instances) RunState(ctx context.Context, repo router.Repo, runID int64) (router.RunState, error) {
	return from(g.of(runID), func(c *Client) (router.RunState, error) { return c.RunState(ctx, repo, router.GitHubID(runID)) })
}

func (g *Instances) RerunJob(ctx context.Context, repo router.Repo, jobID int64) error {
	return do(g.of(jobID), func(c *Client) error { return c.RerunJob(ctx, repo, router.GitHubID(jobID)) })
}

// Budget returns how many requests each GitHub still takes, as Client.Budget does.
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
