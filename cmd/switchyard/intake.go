package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/intake"
)

const (
	intakeWebhook = "webhook"
	intakePoll    = "poll"
	intakeBoth    = "both"

	leastPollEvery = time.Second
	mostPollEvery  = 10 * time.Minute
)

// An intakeForm says how deliveries come from one GitHub.
type intakeForm struct {
	Intake    string        `yaml:"intake"`     // "": webhook
	PollEvery time.Duration `yaml:"poll_every"` // 0: intake.PollEvery
	PollHooks []string      `yaml:"poll_hooks"` // OWNER/ID or OWNER/REPO/ID, besides the App's own
}

// receives reports whether deliveries are received.
func (f intakeForm) receives() bool { return f.Intake != intakePoll }

// polls returns the webhooks whose deliveries are read. Errors name flags by flag, such as
// "--github-intake" or "intake".
func (f intakeForm) polls(in router.Instance, client *gh.Client, flag func(string) string) (all []intake.Poll, err error) {
	mode := cmp.Or(f.Intake, intakeWebhook)
	switch {
	case !slices.Contains([]string{intakeWebhook, intakePoll, intakeBoth}, mode):
		return nil, fmt.Errorf("%s %q: want webhook, poll or both", flag("intake"), f.Intake)
	case mode == intakeWebhook && len(f.PollHooks) > 0:
		return nil, fmt.Errorf("%s needs %s poll or both", flag("poll-hook"), flag("intake"))
	case f.PollEvery != 0 && (f.PollEvery < leastPollEvery || f.PollEvery > mostPollEvery):
		return nil, fmt.Errorf("%s %s: want %s to %s", flag("poll-every"), f.PollEvery, leastPollEvery, mostPollEvery)
	case mode == intakeWebhook:
		return nil, nil
	}
	for _, h := range client.OwnHooks() {
		all = append(all, intake.Poll{Hook: router.Hook{Kind: h.Kind, ID: in.ID(h.ID)}, Every: f.PollEvery})
	}
	for _, text := range f.PollHooks {
		h, err := parseHook(text)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", flag("poll-hook"), text, err)
		}
		h.ID = in.ID(h.ID)
		if slices.ContainsFunc(all, func(p intake.Poll) bool { return p.Hook.Key() == h.Key() }) {
			return nil, fmt.Errorf("%s %q is given twice", flag("poll-hook"), text)
		}
		all = append(all, intake.Poll{Hook: h, Every: f.PollEvery})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s %s with a token needs %s OWNER/ID or OWNER/REPO/ID: the webhook's settings page on GitHub ends with its ID", flag("intake"), mode, flag("poll-hook"))
	}
	return all, nil
}

// parseHook reads the webhook of an organization, OWNER/ID, or of a repository, OWNER/REPO/ID.
func parseHook(text string) (h router.Hook, err error) {
	parts := strings.Split(text, "/")
	id, err := strconv.ParseInt(parts[len(parts)-1], 10, 64)
	if err != nil || id <= 0 || id > router.MaxGitHubID || slices.Contains(parts, "") {
		err = errors.New("want OWNER/ID for the webhook of an organization, or OWNER/REPO/ID: its settings page on GitHub ends with its ID")
	}
	switch {
	case err == nil && len(parts) == 2:
		return router.Hook{Kind: router.HookOrganization, ID: id, Owner: parts[0]}, nil
	case err == nil && len(parts) == 3:
		return router.Hook{Kind: router.HookRepository, ID: id, Owner: parts[0], Repo: parts[1]}, nil
	}
	return h, cmp.Or(err, errors.New("want OWNER/ID for the webhook of an organization, or OWNER/REPO/ID"))
}
