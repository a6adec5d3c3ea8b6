package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"switchyard/router"
)

// usedEvery is how often the use of a session is written, at most.
const usedEvery = time.Minute

const (
	sessionSQL = `SELECT token, issuer, subject, email, name, groups, begun, used FROM sessions WHERE cookie = ?`

	useSessionSQL = `UPDATE sessions SET used = ?2 WHERE cookie = ?1 AND used <= ?3`

	endSessionSQL = `DELETE FROM sessions WHERE cookie = ?`

	// One that began too long ago is not used any more.
	dropIdleSessionsSQL = `DELETE FROM sessions WHERE used < ?`

	dropOwnSessionsSQL = `
DELETE FROM sessions WHERE cookie = ANY (ARRAY(
	SELECT cookie FROM sessions WHERE token = ? AND issuer = ? AND subject = ? ORDER BY used DESC OFFSET ?))`

	dropSessionsSQL = `DELETE FROM sessions WHERE cookie = ANY (ARRAY(SELECT cookie FROM sessions ORDER BY used DESC OFFSET ?))`

	beginSessionSQL = `INSERT INTO sessions (cookie, token, issuer, subject, email, name, groups, begun, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

	dropFinishedLoginsSQL = `DELETE FROM finished_logins WHERE at < ?`

	finishLoginSQL = `INSERT INTO finished_logins (state, at) VALUES (?, ?) ON CONFLICT DO NOTHING`

	loginKeySQL = `SELECT key FROM login_key`

	setLoginKeySQL = `INSERT INTO login_key (key) VALUES (?) ON CONFLICT DO NOTHING`
)

// Sessions is an auth.SessionStore in PostgreSQL.
type Sessions struct {
	*db
	asked *Reader
}

// Sessions returns the sessions that all processes with this database share; nil: it is a
// file, which only one has.
func (s *Store) Sessions() *Sessions {
	if s.postgres == nil {
		return nil
	}
	return &Sessions{s.db, s.asked}
}

// Session implements auth.SessionStore. The use of a session is recorded in the background.
func (s *Sessions) Session(ctx context.Context, cookie [32]byte, now time.Time, used bool) (router.Session, error) {
	one, err := only(s.asked.querier(ctx), "read a session", scanSession, sessionSQL, cookie[:])
	switch {
	case err != nil:
		return router.Session{}, err
	case one.Over(now):
		return router.Session{}, router.ErrNotFound
	}
	if used && now.Sub(one.Used) >= usedEvery {
		s.writer.later(func(t *tx) error {
			_, err := t.exec(useSessionSQL, cookie[:], millis(now), millis(now.Add(-usedEvery)))
			return err
		})
	}
	return one, nil
}

func scanSession(rows *sql.Rows, s *router.Session) error {
	var token []byte
	var groups string
	var begun, used int64
	if err := rows.Scan(&token, &s.Person.Issuer, &s.Person.Subject, &s.Person.Email, &s.Person.Name, &groups, &begun, &used); err != nil {
		return err
	}
	copy(s.Token[:], token)
	s.Begun, s.Used = fromMillis(begun), fromMillis(used)
	return json.Unmarshal([]byte(groups), &s.Person.Groups)
}

// later makes a change that nobody waits for, unless too many wait already.
func (w *writer) later(do func(*tx) error) {
	select {
	case w.ops <- &op{from: router.SourceOperator, do: do, done: make(chan struct{})}:
	default:
	}
}

// BeginSession implements auth.SessionStore. It also deletes sessions that are over.
func (s *Sessions) BeginSession(ctx context.Context, cookie [32]byte, one router.Session) error {
	is := one.Person
	groups, err := json.Marshal(is.Groups)
	if err != nil {
		return err
	}
	return s.writer.change(ctx, router.SourceOperator, func(t *tx) error {
		if _, err := t.exec(dropIdleSessionsSQL, millis(one.Begun.Add(-router.SessionIdle))); err != nil {
			return err
		}
		if _, err := t.exec(dropOwnSessionsSQL, one.Token[:], is.Issuer, is.Subject, router.MaxOwnSessions-1); err != nil {
			return err
		}
		if _, err := t.exec(dropSessionsSQL, router.MaxSessions-1); err != nil {
			return err
		}
		_, err := t.exec(beginSessionSQL, cookie[:], one.Token[:], is.Issuer, is.Subject, is.Email, is.Name, string(groups), millis(one.Begun), millis(one.Used))
		return err
	})
}

// EndSession implements auth.SessionStore.
func (s *Sessions) EndSession(ctx context.Context, cookie [32]byte) error {
	return s.exec(ctx, router.SourceOperator, endSessionSQL, cookie[:])
}

// FinishLogin implements auth.SessionStore. It remembers them for twice as long as they last,
// as the clocks of machines differ.
func (s *Sessions) FinishLogin(ctx context.Context, state string, now time.Time) (first bool, err error) {
	return changed(ctx, s.db, router.SourceOperator, func(t *tx) (bool, error) {
		if _, err := t.exec(dropFinishedLoginsSQL, millis(now.Add(-2*router.LoginPending))); err != nil {
			return false, err
		}
		n, err := t.exec(finishLoginSQL, state, millis(now))
		return n > 0, err
	})
}

// LoginKey implements auth.SessionStore. Whoever asks first makes the key.
func (s *Sessions) LoginKey(ctx context.Context) ([]byte, error) {
	read := func() ([]byte, error) {
		return only(s.asked.querier(ctx), "read the key of logins", func(rows *sql.Rows, key *[]byte) error { return rows.Scan(key) }, loginKeySQL)
	}
	key, err := read()
	if !errors.Is(err, router.ErrNotFound) {
		return key, err
	}
	made := make([]byte, 32)
	_, _ = rand.Read(made) // it never fails: https://pkg.go.dev/crypto/rand#Read
	if err := s.exec(ctx, router.SourceOperator, setLoginKeySQL, made); err != nil {
		return nil, fmt.Errorf("make the key of logins: %w", err)
	}
	return read()
}
