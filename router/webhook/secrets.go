package webhook

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"switchyard/router"
)

const rereadEvery = time.Second // at most, as each request of a stranger would read the files

// A keyring holds the secrets of all GitHubs, and rereads them.
type keyring struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex // of what follows, and held while files are read
	all    []Instance // never changed; another takes its place
	readAt time.Time
	failed string // the error that was logged last; "": the last read succeeded
}

// newKeyring checks the secrets.
func newKeyring(all []Instance, log *slog.Logger, now func() time.Time) (*keyring, error) {
	if err := checkSecrets(all); err != nil {
		return nil, err
	}
	return &keyring{log: log, now: now, all: all, readAt: now()}, nil
}

// checkSecrets returns what is wrong with secrets, without showing any.
func checkSecrets(all []Instance) error {
	of := map[router.Secret]int64{}
	for _, in := range all {
		where := in.where()
		if n := len(in.Secrets); n < 1 || n > 2 {
			return fmt.Errorf("%s: got %d secrets, want one, or two while one is being changed", where, n)
		}
		for i, s := range in.Secrets {
			if len(s) < minSecret {
				return fmt.Errorf("%s: secret %d has %d bytes, want at least %d: make one with `openssl rand -hex 32`", where, i+1, len(s), minSecret)
			}
			if n, ok := of[s]; ok && n != in.Number {
				return fmt.Errorf("%s: secret %d also belongs to another GitHub: give each its own, as a secret shows which one sent a delivery", where, i+1)
			}
			of[s] = in.Number
		}
	}
	return nil
}

func (in Instance) where() string {
	if in.Number == 0 {
		return "webhook"
	}
	return "webhook of " + in.Host
}

// instances returns the current secrets. The previous ones stay in use if the new ones
// cannot be read or used.
func (k *keyring) instances() []Instance {
	k.mu.Lock()
	defer k.mu.Unlock()
	was, now := k.all, k.now()
	if age := now.Sub(k.readAt); age >= 0 && age < rereadEvery {
		return was
	}
	k.readAt = now
	is := slices.Clone(was)
	var errs []error
	for i, in := range was {
		if in.Reread == nil {
			continue
		}
		secrets, err := in.Reread()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in.where(), err))
			continue
		}
		is[i].Secrets = secrets
	}
	if err := checkSecrets(is); err != nil {
		errs, is = append(errs, err), was
	}
	k.all = is
	for i := range is {
		if !slices.Equal(is[i].Secrets, was[i].Secrets) {
			k.log.Info("the secrets of a webhook were read again", "webhook", is[i].where(), "secrets", len(is[i].Secrets))
		}
	}
	said := ""
	if err := errors.Join(errs...); err != nil {
		said = err.Error()
	}
	if said != "" && said != k.failed {
		k.log.Error("cannot use the new secrets of a webhook; the previous ones stay in use", "err", said)
	}
	k.failed = said
	return is
}
