package githubsim

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The errors of Register.
var (
	ErrUnknownToken = errors.New("the registration token is unknown, expired or for another address")
	ErrNameTaken    = errors.New("a runner with this name exists already")
	ErrUnknownGroup = errors.New("there is no runner group of this name")
	ErrTooOld       = errors.New("a runner of this version can no longer be registered")
	ErrTooMany      = errors.New("too many runners were registered here recently")
)

// A Registration is what config.sh --unattended --ephemeral is given. It is
// made with --no-default-labels: the runner gets these labels and no others.
type Registration struct {
	URL     string // of a repository, an organization or an enterprise, at any host
	Token   string
	Name    string
	Group   string // its name; "": Default
	Labels  []string
	Replace bool // one of the same name, unless it has a job
}

type registrationToken struct {
	scope   scope
	expires time.Time
}

// Register does what config.sh does: it makes a runner, offline, and returns
// its configuration, for Connect. It fails with ErrUnknownToken, ErrNameTaken,
// ErrUnknownGroup, ErrTooOld or, as Config.Registrations says, ErrTooMany.
func (s *floor) Register(r Registration) (config string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token, known := s.registrationTokens[r.Token]
	if !known || !s.cfg.Now().Before(token.expires) || token.scope.lower() != scopeOf(r.URL).lower() {
		return "", ErrUnknownToken
	}
	if s.past(s.versions[s.version].Registration) {
		return "", ErrTooOld
	}
	if r.Name == "" || len(r.Labels) == 0 {
		return "", errors.New("a registration needs a name and labels")
	}
	group := int64(0)
	for id, g := range s.groups {
		if strings.EqualFold(g.Name, r.Group) || r.Group == "" && id == 1 {
			group = id
		}
	}
	if group == 0 {
		return "", ErrUnknownGroup
	}
	if old := s.named(token.scope, r.Name); old != nil {
		if !r.Replace || old.job != nil {
			return "", ErrNameTaken
		}
		s.remove(old)
	}
	if !s.registration(token.scope) {
		return "", ErrTooMany
	}
	_, config = s.register(token.scope, jitRequest{Name: r.Name, GroupID: group, Labels: r.Labels, WorkFolder: "_work"})
	return config, nil
}

// scopeOf reads the address of a page.
func scopeOf(address string) scope {
	u, err := url.Parse(address)
	if err != nil {
		return scope{}
	}
	switch parts := strings.Split(strings.Trim(u.Path, "/"), "/"); {
	case len(parts) == 2 && parts[0] == "enterprises":
		return scope{enterprise: parts[1]}
	case len(parts) == 2:
		return scope{owner: parts[0], repo: parts[1]}
	case len(parts) == 1:
		return scope{owner: parts[0]}
	}
	return scope{}
}

func (s rest) createRegistrationToken(w http.ResponseWriter, _ *http.Request, sc scope) {
	token := "A" + rand.Text()
	expires := s.cfg.Now().Add(tokenLifetime).Truncate(time.Second)
	s.registrationTokens[token] = registrationToken{sc, expires}
	answer(w, http.StatusCreated, object{"token": token, "expires_at": stamp(expires)})
}
