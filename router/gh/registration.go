package gh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/go-github/v60/github"
	"golang.org/x/sync/semaphore"

	"switchyard/router"
)

const (
	maxGroup    = 128              // characters of a runner group's name
	maxRegToken = 1 << 10          // bytes of one registration token; they have about 30
	tokenLeft   = 15 * time.Minute // that a token must last: a node may pull an image before its runner registers
)

// registrations has the registration tokens of runners, by target.
type registrations struct {
	mu sync.Mutex
	by map[target]*registration
}

type registration struct {
	turn    *semaphore.Weighted // guards the rest
	token   router.Secret
	expires time.Time
	groups  map[int64]string // names by ID
	refusal refusal          // of a token
}

func (r *registrations) of(t target) *registration {
	r.mu.Lock()
	defer r.mu.Unlock()
	t = t.lower()
	if r.by == nil {
		r.by = map[target]*registration{}
	}
	if r.by[t] == nil {
		r.by[t] = &registration{turn: semaphore.NewWeighted(1), groups: map[int64]string{}}
	}
	return r.by[t]
}

// RegistrationToken implements router.GitHub. A token is requested about once an hour, and
// a group's name once, by one caller at a time; the others wait.
func (c *registrar) RegistrationToken(ctx context.Context, r router.ConfigRequest) (router.Registration, error) {
	reg, err := c.registrationToken(ctx, r)
	if t, wrong := targetOf(r); wrong == nil {
		err = c.registeredIn(place{t.lower(), r.Runner.Group}, err)
	}
	return reg, err
}

func (c *registrar) registrationToken(ctx context.Context, r router.ConfigRequest) (router.Registration, error) {
	t, err := targetOf(r)
	if err == nil {
		err = checkLabels(r.Labels)
	}
	if err != nil {
		return router.Registration{}, &router.GiveUpError{Err: err}
	}
	if r.Runner.Group != router.DefaultGroup && t.repo != "" {
		return router.Registration{}, noGroups(r.Runner.Group)
	}
	reg := c.registrations.of(t)
	if err := reg.turn.Acquire(ctx, 1); err != nil {
		return router.Registration{}, fmt.Errorf("wait for a registration token of %s: %w", t, err)
	}
	defer reg.turn.Release(1)
	group, err := c.nameOfGroup(ctx, t, reg, r.Runner.Group)
	if err != nil {
		return router.Registration{}, err
	}
	if now := c.now(); now.After(reg.expires.Add(-tokenLeft)) {
		if reg.refusal.stands(now) {
			return router.Registration{}, reg.refusal.err
		}
		if err := c.newRegistration(ctx, t, reg); err != nil {
			reg.refusal = refused(err, c.now())
			return router.Registration{}, err
		}
	}
	// Nearly each answer is used to register a runner.
	if err := c.wait(ctx, claim, func(now time.Time) (time.Time, string) { return c.registered.take(t, now, nil) }); err != nil {
		return router.Registration{}, err
	}
	return router.Registration{Token: reg.token, URL: c.webURL(t), Group: group, Expires: reg.expires}, nil
}

// newRegistration requests a new token:
// https://docs.github.com/en/rest/actions/self-hosted-runners (read 2026-11-24).
func (c *registrar) newRegistration(ctx context.Context, t target, reg *registration) error {
	var found github.RegistrationToken
	of := t.callFor("get a registration token of ")
	of.priority, of.jobWaits = claim, true
	err := c.ask(ctx, t, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		resp, err := send(ctx, api, http.MethodPost, t.path()+"/registration-token", nil, &found)
		token := found.GetToken()
		if err == nil && (token == "" || len(token) > maxRegToken || !printable(token) || found.ExpiresAt == nil) {
			err = errors.New("GitHub's answer lacks the registration token")
		}
		return resp, err
	})
	if err != nil {
		return err
	}
	reg.token, reg.expires = router.Secret(found.GetToken()), found.GetExpiresAt().Time
	return nil
}

// nameOfGroup returns the name of a runner group that config.sh is given; "" for GitHub's
// default one. reg.turn is held.
func (c *registrar) nameOfGroup(ctx context.Context, t target, reg *registration, group router.RunnerGroup) (string, error) {
	id := group.ID()
	if id == 0 {
		g, err := c.groupNamed(router.ForClaim(ctx), t, group)
		return g.Name, err
	}
	name, known := reg.groups[id]
	if known || group == router.DefaultGroup {
		return name, nil
	}
	name, err := c.groupName(ctx, t, id)
	if err == nil {
		reg.groups[id] = name
	}
	return name, err
}

// groupName requests the name of a runner group:
// https://docs.github.com/en/rest/actions/self-hosted-runner-groups (read 2026-11-25).
func (c *registrar) groupName(ctx context.Context, t target, id int64) (string, error) {
	var found struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	}
	of := t.callFor(fmt.Sprintf("read runner group %d of ", id))
	of.priority = claim
	of.exists = "the rule's runner group exists there"
	err := c.ask(ctx, t, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
		resp, err := send(ctx, api, http.MethodGet, fmt.Sprintf("%s/actions/runner-groups/%d", t.base(), id), nil, &found)
		if err == nil && (found.ID != id || !validGroupName(found.Name)) {
			err = errors.New("GitHub's answer lacks the name of the runner group")
		}
		return resp, err
	})
	return found.Name, err
}

// checkLabels refuses labels that config.sh --labels, a list with commas, would change.
func checkLabels(labels []string) error {
	if len(labels) == 0 {
		return errors.New("a runner that registers itself needs a label")
	}
	for _, l := range labels {
		if strings.Contains(l, ",") || strings.TrimSpace(l) != l || l == "" || strings.ContainsFunc(l, unicode.IsControl) {
			return fmt.Errorf("a runner that registers itself cannot have the label %q, because config.sh splits labels at commas and trims them: use registration: jit for it", l)
		}
	}
	return nil
}

// webURL returns the target's page, on github.com, a tenant of ghe.com or an Enterprise
// Server, whose API is below /api/v3/.
func (c *caller) webURL(t target) string {
	u := *c.base
	u.Host = c.Host()
	u.Path = strings.TrimSuffix(u.Path, "api/v3/")
	switch {
	case t.enterprise != "":
		u.Path += "enterprises/" + t.enterprise
	case t.organization:
		u.Path += t.owner
	default:
		u.Path += t.owner + "/" + t.repo
	}
	return u.String()
}

// send makes a request for which go-github v60 has no method, or not for all targets.
func send(ctx context.Context, api *github.Client, method, path string, body, into any) (*github.Response, error) {
	req, err := api.NewRequest(method, path, body)
	if err != nil {
		return nil, err
	}
	return api.Do(ctx, req, into)
}
