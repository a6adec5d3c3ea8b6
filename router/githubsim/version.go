package githubsim

import (
	"errors"
	"net/http"
	"time"
)

// newestVersion is the version of runners, unless RunnersAre says otherwise.
const newestVersion = "2.336.0"

// ErrVersion is returned by Connect for a runner whose version GitHub refuses. Its process
// exits with code 7.
var ErrVersion = errors.New("the runner's version is deprecated and cannot receive messages")

// A VersionEnd says how long GitHub supports a version of the runner.
type VersionEnd struct {
	Jobs         time.Time // after it, its runners get no jobs, and wait for ever; zero: no date
	Registration time.Time // after it, they cannot register themselves; zero: no date
	Refused      bool      // after Jobs they cannot connect either
}

// SetVersion makes a version of the runner, which GitHub shows from then on. Besides, it shows
// the newest.
func (s *Server) SetVersion(version string, end VersionEnd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[version] = end
}

// RunnersAre makes this the version of the runners that connect from now on.
func (s *Server) RunnersAre(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = version
}

// outdated reports whether a runner of this version gets no jobs. s.mu is held.
func (s *state) outdated(version string) bool { return s.past(s.versions[version].Jobs) }

func (s *state) past(end time.Time) bool { return !end.IsZero() && s.cfg.Now().After(end) }

// getVersionEnd answers as GitHub did on 2026-09-09: what has no date is null, except the
// registration, which is missing then
// (https://github.com/github/rest-api-description/issues/7162, read 2026-11-30).
func (s rest) getVersionEnd(w http.ResponseWriter, r *http.Request, sc scope) {
	version := r.PathValue("version")
	end, ok := s.versions[version]
	if !ok || sc.enterprise != "" { // https://github.com/github/rest-api-description/issues/7163 (read 2026-11-30)
		notFound(w)
		return
	}
	o := object{"runner_version": version, "runtime_deprecates_at": nil}
	if !end.Jobs.IsZero() {
		o["runtime_deprecates_at"] = stamp(end.Jobs)
	}
	if !end.Registration.IsZero() {
		o["registration_deprecates_at"] = stamp(end.Registration)
	}
	answer(w, http.StatusOK, o)
}
