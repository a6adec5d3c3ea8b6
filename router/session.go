package router

import "time"

// How long people stay logged in to the console, and how many sessions there may be.
const (
	SessionLasts   = 12 * time.Hour
	SessionIdle    = time.Hour // without use
	MaxSessions    = 10_000
	MaxOwnSessions = 1000             // of one token or person, who so ends none of others'
	LoginPending   = 10 * time.Minute // for the login at an OpenID Connect provider
)

// A Session is that of somebody who logged in to the console with a browser.
type Session struct {
	Token       [32]byte // SHA-256 of the token with which they logged in; zero: they did by OpenID Connect
	Person      Person   // who logged in by OpenID Connect
	Begun, Used time.Time
}

// Over reports whether the session has ended by itself.
func (s *Session) Over(now time.Time) bool {
	return now.Sub(s.Begun) > SessionLasts || now.Sub(s.Used) > SessionIdle
}

// SameHolder reports whether both are of the same token or person.
func (s *Session) SameHolder(other *Session) bool {
	return s.Token == other.Token && s.Person.Issuer == other.Person.Issuer && s.Person.Subject == other.Person.Subject
}

// A Person is who logged in by OpenID Connect. Issuer and Subject say who that
// is; what a person may choose at the provider says nothing.
type Person struct {
	Issuer, Subject string
	Email           string // that the provider has verified; "": none, or it is not what names people
	Name            string // as the person may have chosen; ""
	Groups          []string
}
