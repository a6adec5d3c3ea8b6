package gh

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

const maxAccepted = 256 // bytes of X-Accepted-GitHub-Permissions that are read

// runnerLimit matches GitHub's message about a full runner group: "Runner group 1 has
// reached max limit of 10000 runners".
var runnerLimit = regexp.MustCompile(`(?i)\b(limit|maximum)\b.*\brunners\b|\brunners\b.*\b(limit|maximum)\b`)

// aboutRequest matches GitHub's message about a faulty request: in a registration, about
// the labels, which are the job's.
var aboutRequest = regexp.MustCompile(`(?i)\blabels?\b|\bvalidation failed\b|\bproblems parsing\b`)

// sortRefusal returns the error for a 4xx other than a rate limit, a failed login and a
// 404, by GitHub's message. If a job waits, Switchyard waits for everything that a person
// can fix, and for unknown causes: only a fault in the job's own labels ends the job.
func (s *session) sortRefusal(code int, err error, resp *github.Response, c call, who, accept string) error {
	_, said, _ := strings.Cut(err.Error(), "GitHub answered ") // not the names in what was asked
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(strings.ToLower(said), w) })
	}
	fix := func(format string, args ...any) error {
		return &router.FixError{Fix: fmt.Sprintf(format, args...), Err: err}
	}
	switch {
	case c.registration() && code == http.StatusUnprocessableEntity && runnerLimit.MatchString(said):
		return &router.FixError{
			Fix: "remove runners of that group which are not used (Switchyard removes its own that are offline), or name another group in the rule",
			Err: fmt.Errorf("%w: %w", router.ErrRunnerLimit, err),
		}
	case code == http.StatusForbidden:
		switch sso := singleSignOn(resp); {
		case sso != "" || has("saml"):
			if sso == "" {
				sso = "in its settings on GitHub (Configure SSO)"
			}
			return fix("authorize %s for the single sign-on of %s: %s", who, c.owner, sso)
		case has("ip allow list", "ip address"):
			return fix("add the address of this machine to the IP allow list of %s, or let %s in by its own list", c.owner, who)
		case has("archived"):
			return fix("unarchive the repository, or cancel the job: nothing can be changed in an archived one")
		case has("disabled") && has("runner"):
			return fix("allow self-hosted runners for the repository (Settings of %s, Actions, General, Runners), or have the rule register them with runner: { scope: organization }", c.owner)
		case has("disabled") && has("actions"):
			return fix("enable Actions for the repository, in its settings or those of %s", c.owner)
		}
		switch asks, lacks := s.lacks(resp); {
		case asks == "" || lacks != "":
			return fix("give %s the %s%s", who, c.permission, accept)
		case c.registration():
			return fix("see whether self-hosted runners are allowed for the repository (Settings of %s, Actions, General, Runners) and what the rules of its enterprise say: %s has the permission that GitHub asks for (%s)", c.owner, who, asks)
		default:
			return fix("see what the settings of %s do not allow: %s has the permission that GitHub asks for (%s)", c.owner, who, asks)
		}
	case (code == http.StatusUnprocessableEntity || code == http.StatusBadRequest) && (!c.jobWaits || aboutRequest.MatchString(said)):
		return &router.GiveUpError{Err: err}
	case c.jobWaits:
		if code == http.StatusConflict {
			return err
		}
		return &router.FixError{Fix: "see what GitHub says; the job is retried, at growing intervals", Err: &oddRefusal{err}}
	}
	return err
}

// An oddRefusal is a refusal of unknown cause, which may concern only one job.
type oddRefusal struct{ err error }

func (e *oddRefusal) Error() string { return e.err.Error() }
func (e *oddRefusal) Unwrap() error { return e.err }

// singleSignOn returns the page on which a token is authorized, from X-GitHub-SSO:
// https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api (read 2026-11-29).
func singleSignOn(resp *github.Response) string {
	_, page, ok := strings.Cut(resp.Header.Get("X-GitHub-SSO"), "url=")
	page, _, _ = strings.Cut(page, ";")
	if u, err := url.Parse(page); !ok || err != nil || u.Scheme != "https" || len(page) > maxMessage || !printable(page) {
		return ""
	}
	return page
}

// lacks returns the permissions that GitHub asks for, by
// X-Accepted-GitHub-Permissions, such as "administration=write", and the one of them
// that an installation lacks; asks is "" when either is not known. Of several sets,
// separated by ";", one is enough:
// https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api (read 2026-11-29).
func (s *session) lacks(resp *github.Response) (asks, lacks string) {
	asks = resp.Header.Get("X-Accepted-GitHub-Permissions")
	s.mu.Lock()
	granted := s.granted
	s.mu.Unlock()
	if asks == "" || len(asks) > maxAccepted || !printable(strings.ReplaceAll(asks, " ", "")) || granted == nil {
		return "", ""
	}
	for set := range strings.SplitSeq(asks, ";") {
		lacks = ""
		for one := range strings.SplitSeq(set, ",") {
			name, level, _ := strings.Cut(strings.TrimSpace(one), "=")
			if has := granted[name]; has != level && has != "admin" && !(has == "write" && level == "read") {
				lacks = name
			}
		}
		if lacks == "" {
			return asks, ""
		}
	}
	return asks, lacks
}

// grantedTo returns the permissions of an installation, by GitHub's names.
func grantedTo(p *github.InstallationPermissions) (granted map[string]string) {
	b, err := json.Marshal(p)
	if p == nil || err != nil || json.Unmarshal(b, &granted) != nil {
		return nil
	}
	return granted
}
