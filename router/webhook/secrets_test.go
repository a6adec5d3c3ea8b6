package webhook_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/webhook"
)

// Secrets are changed while the handler runs, each GitHub's by itself, and what
// cannot be used leaves those before it in use.
func TestSecretsAreReadAgain(t *testing.T) {
	const (
		newSecret = "the secret after the change"
		other     = "the secret of the other"
		otherNew  = "the other's, after the change"
	)
	at, reads := now, 0
	first, second, fail := []router.Secret{secret}, []router.Secret{other}, error(nil)
	h := newHook(t, func(c *webhook.Config) {
		c.Now = func() time.Time { return at }
		c.Secrets, c.Reread = first, func() ([]router.Secret, error) { reads++; return first, fail }
		c.More = []webhook.Instance{{Instance: router.Instance{Number: 2, Host: "ghe.example"}, Secrets: second, Reread: func() ([]router.Secret, error) { return second, nil }}}
	})
	signed := func(secret string, status int) {
		t.Helper()
		want(t, h.send(signedBy(secret, queued)), status, "")
	}
	const yes, no = http.StatusAccepted, http.StatusUnauthorized
	lines := func(text string) int { return strings.Count(h.log.String(), text) }

	signed(secret, yes)
	first = []router.Secret{newSecret, secret}
	signed(newSecret, no) // within the same second
	if reads != 0 {
		t.Errorf("read %d times within a second", reads)
	}
	at = at.Add(time.Second)
	signed(newSecret, yes)
	signed(secret, yes)
	if reads != 1 || lines("the secrets of a webhook were read again") != 1 {
		t.Errorf("read %d times, want once, with one line:\n%s", reads, h.log.String())
	}
	first = first[:1]
	at = at.Add(time.Second)
	signed(secret, no) // it is gone
	signed(newSecret, yes)

	second = []router.Secret{otherNew}
	at = at.Add(time.Second)
	signed(otherNew, yes)
	signed(other, no)
	if d := h.got[len(h.got)-1]; d.Job.Repo.Host != "ghe.example" {
		t.Errorf("the delivery is of %q", d.Job.Repo.Host)
	}

	for name, spoil := range map[string]func(){
		"a file that cannot be read": func() { fail = errors.New("open secret: permission denied") },
		"none":                       func() { first = nil },
		"a short one":                func() { first = []router.Secret{"short"} },
		"the other's":                func() { first = []router.Secret{otherNew} },
	} {
		before := lines("cannot use the new secrets of a webhook")
		spoil()
		for range 3 {
			at = at.Add(time.Second)
			signed(newSecret, yes)
			signed(otherNew, yes)
			signed("short", no)
		}
		if got := lines("cannot use the new secrets of a webhook"); got != before+1 {
			t.Errorf("%s is logged %d times, want once:\n%s", name, got-before, h.log.String())
		}
		first, fail = []router.Secret{newSecret}, nil
		at = at.Add(time.Second)
		signed(newSecret, yes)
	}
	if log := h.log.String(); strings.Contains(log, newSecret) || strings.Contains(log, otherNew) {
		t.Errorf("the log has a secret:\n%s", log)
	}
	at = at.Add(-time.Hour) // a clock that is set back stops nothing
	first = []router.Secret{secret}
	signed(secret, yes)
}
