package gh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/go-github/v60/github"
	"golang.org/x/sync/singleflight"

	"switchyard/router"
)

const (
	groupsPage     = 100         // GitHub's most
	mostGroupPages = 100         // of one target
	groupsFresh    = time.Hour   // for a group that is renamed, and another that gets its name
	groupsAgain    = time.Minute // until GitHub is asked again for a group that it lacked
	nearGroups     = 5           // groups that are named in place of one that is missing
)

// A runnerGroup is a runner group as GitHub lists it:
// https://docs.github.com/en/rest/actions/self-hosted-runner-groups (read 2026-11-30).
type runnerGroup struct {
	ID         int64    `json:"id"`
	Name       string   `json:"name"`
	Public     bool     `json:"allows_public_repositories"`
	Restricted bool     `json:"restricted_to_workflows"`
	Workflows  []string `json:"selected_workflows"`
}

// groupLists has the runner groups of those targets in which a rule names one. The zero
// value is ready.
type groupLists struct {
	reading singleflight.Group

	mu sync.Mutex
	by map[target]groupList
}

type groupList struct {
	groups  []runnerGroup
	read    time.Time // zero: not yet
	refusal refusal   // of the last attempt to read them
}

func (l *groupLists) of(t target) groupList {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[t.lower()]
}

func (l *groupLists) put(t target, list groupList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil || len(l.by) >= maxPlaces {
		l.by = map[target]groupList{}
	}
	l.by[t.lower()] = list
}

// groupNamed returns the runner group of a target that has a name. The groups are listed
// once and kept for an hour; again when they lack the group, at most once a minute, and
// after GitHub said that a group is gone. When that fails, the group that is known counts.
func (c *registrar) groupNamed(ctx context.Context, t target, name router.RunnerGroup) (runnerGroup, error) {
	if t.repo != "" {
		return runnerGroup{}, noGroups(name)
	}
	now, list := c.now(), c.groups.of(t)
	g, known := pick(list.groups, name)
	switch {
	case known && now.Before(list.read.Add(groupsFresh)):
		return g, nil
	case !known && now.Before(list.read.Add(groupsAgain)):
		return g, noSuchGroup(t, name, list.groups)
	case list.refusal.stands(now) && !known:
		return g, list.refusal.err
	case list.refusal.stands(now):
		return g, nil
	}
	read, err, _ := c.groups.reading.Do(fmt.Sprint(t.lower()), func() (any, error) {
		if since := c.groups.of(t); since.read.After(list.read) {
			return since.groups, nil
		}
		groups, err := c.listGroups(context.WithoutCancel(ctx), t, routing, nil) // others may wait for it, too
		if err != nil {
			list.refusal = refused(err, c.now())
			c.groups.put(t, list)
			return nil, err
		}
		c.groups.put(t, groupList{groups: groups, read: c.now()})
		return groups, nil
	})
	if err != nil && known {
		return g, nil
	}
	if err != nil {
		return g, err
	}
	groups := read.([]runnerGroup)
	if g, known = pick(groups, name); !known {
		return g, noSuchGroup(t, name, groups)
	}
	return g, nil
}

// groupID returns the ID of the group in which a runner is registered.
func (c *registrar) groupID(ctx context.Context, t target, group router.RunnerGroup) (int64, error) {
	if id := group.ID(); id != 0 {
		return id, nil
	}
	g, err := c.groupNamed(ctx, t, group)
	return g.ID, err
}

// hasGroup refuses a runner group that GitHub does not have in a target, before a runner is
// started for it.
func (c *registrar) hasGroup(ctx context.Context, p place) error {
	if p.group.ID() != 0 {
		return nil
	}
	_, err := c.groupNamed(ctx, p.target, p.group)
	if err == nil || errors.As(err, new(*router.RetryAtError)) || errors.As(err, new(*router.GiveUpError)) {
		return err
	}
	return &router.RetryAtError{At: c.now().Add(groupsAgain), Line: fmt.Sprint(c.Host(), " ", p), Failing: true, Err: err}
}

// GroupAccess implements router.GitHub. It makes one request for each page of groups that
// the repository may use, and as many for all groups if it may not use this one. Of an
// enterprise's group GitHub only tells whether the repository's organization may use it.
func (c *Client) GroupAccess(ctx context.Context, t router.Target, group router.RunnerGroup, repo router.Repo) (router.GroupAccess, error) {
	at, err := pathOf(t)
	if err == nil && (!pathName(repo.Owner) || !pathName(repo.Name)) {
		err = fmt.Errorf("%q is not a valid repository name on GitHub", repo.Owner+"/"+repo.Name)
	}
	if err != nil {
		return router.GroupAccess{}, &router.GiveUpError{Err: err}
	}
	if at.repo != "" {
		return router.GroupAccess{}, noGroups(group)
	}
	whose, visible := repo.Owner+"/"+repo.Name, url.Values{"visible_to_repository": {repo.Name}}
	if at.enterprise != "" {
		whose, visible = "organization "+repo.Owner, url.Values{"visible_to_organization": {repo.Owner}}
	}
	list, err := c.listGroups(ctx, at, housekeeping, visible)
	if err != nil {
		return router.GroupAccess{}, err
	}
	g, ok := pick(list, group)
	switch {
	case ok && !repo.Private && !g.Public:
		return router.GroupAccess{Group: g.Name, Refusal: g.refuses(at, "public repositories, and so not "+repo.Owner+"/"+repo.Name)}, nil
	case ok && g.Restricted:
		return router.GroupAccess{Group: g.Name, Workflows: append([]string{}, g.Workflows...)}, nil
	case ok:
		return router.GroupAccess{Group: g.Name}, nil
	}
	if list, err = c.listGroups(ctx, at, housekeeping, nil); err != nil {
		return router.GroupAccess{}, err
	}
	c.groups.put(at, groupList{groups: list, read: c.now()})
	if g, ok = pick(list, group); !ok {
		return router.GroupAccess{Refusal: noSuchGroup(at, group, list).Error()}, nil
	}
	return router.GroupAccess{Group: g.Name, Refusal: g.refuses(at, whose)}, nil
}

// refuses says that a group of a target does not let somebody use it.
func (g *runnerGroup) refuses(t target, whom string) string {
	return fmt.Sprintf("runner group %s of %s does not allow %s: allow it on GitHub (Settings, Actions, Runner groups, %s), or name another group in the rule", g.Name, t, whom, g.Name)
}

// listGroups lists the runner groups of a target, or those that q selects.
func (c *caller) listGroups(ctx context.Context, t target, p priority, q url.Values) (list []runnerGroup, err error) {
	for page := 1; page > 0; {
		if page > mostGroupPages {
			return nil, fmt.Errorf("list the runner groups of %s: GitHub lists more than %d", t, mostGroupPages*groupsPage)
		}
		asked := url.Values{"per_page": {strconv.Itoa(groupsPage)}, "page": {strconv.Itoa(page)}}
		for key := range q {
			asked.Set(key, q.Get(key))
		}
		var found struct {
			Groups []runnerGroup `json:"runner_groups"`
		}
		of := t.callFor("list the runner groups of ")
		of.priority = p
		err := c.ask(ctx, t, of, func(ctx context.Context, api *github.Client) (*github.Response, error) {
			resp, err := send(ctx, api, http.MethodGet, t.base()+"/actions/runner-groups?"+asked.Encode(), nil, &found)
			if err == nil && (found.Groups == nil || len(found.Groups) > groupsPage || resp.NextPage != 0 && resp.NextPage != page+1 ||
				slices.ContainsFunc(found.Groups, func(g runnerGroup) bool { return g.ID <= 0 || g.Name == "" })) {
				err = errors.New("GitHub's answer is not a page of runner groups")
			}
			if err == nil {
				page = resp.NextPage
			}
			return resp, err
		})
		if no, ok := errors.AsType[*router.GiveUpError](err); ok { // it is not about the job
			return nil, &router.FixError{Fix: "see what GitHub says, or name the runner group by its ID", Err: errors.New(no.Error())}
		}
		if err != nil {
			return nil, err
		}
		list = append(list, found.Groups...)
	}
	return slices.DeleteFunc(list, func(g runnerGroup) bool { return !validGroupName(g.Name) }), nil
}

// validGroupName reports whether s is a name that a rule can have.
func validGroupName(s string) bool {
	return s != "" && router.Cut(s, maxGroup) == s && !strings.ContainsFunc(s, unicode.IsControl)
}

// pick returns the group with the ID or the name, which GitHub compares without case.
func pick(groups []runnerGroup, which router.RunnerGroup) (g runnerGroup, ok bool) {
	for _, g := range groups {
		if id := which.ID(); id == g.ID || id == 0 && strings.EqualFold(g.Name, string(which)) {
			return g, true
		}
	}
	return g, false
}

func noGroups(group router.RunnerGroup) error {
	return &router.GiveUpError{Err: fmt.Errorf("a repository has no runner groups, and so no group %s", group)}
}

// noSuchGroup returns the error for a group that a target lacks. It names those that it
// has, with the most similar names first.
func noSuchGroup(t target, which router.RunnerGroup, groups []runnerGroup) error {
	var names []string
	for _, g := range groups {
		names = append(names, g.Name)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(distance(a, string(which)), distance(b, string(which)))
	})
	has := "; GitHub shows none there"
	if len(names) > 0 {
		has = "; it has " + strings.Join(names[:min(len(names), nearGroups)], ", ")
	}
	if more := len(names) - nearGroups; more > 0 {
		has += fmt.Sprintf(" and %d more", more)
	}
	name := string(which)
	if which.ID() == 0 {
		name = strconv.Quote(name)
	}
	return &router.FixError{
		Fix: "name one that exists in the rule, or create it on GitHub (Settings, Actions, Runner groups)",
		Err: fmt.Errorf("%s has no runner group %s%s", t, name, has),
	}
}

// distance returns how many letters must be changed, added or left out to make one name of
// another, without case.
func distance(a, b string) int {
	from, to := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i := range from {
		before := row[0]
		row[0] = i + 1
		for j := range to {
			change := before
			if from[i] != to[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(to)]
}
