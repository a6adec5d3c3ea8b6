package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"switchyard/router"
)

const (
	electEvery   = 250 * time.Millisecond // tries to become the leader; a leader that stops says so at once
	lookEvery    = time.Second            // at the other replicas
	silentLeader = "4 seconds"            // without a look: its machine, or the way to it, is gone
	stuckChange  = "2 seconds"            // of a transaction in which nothing happens; a delivery waits for longer
	watchTimeout = 5 * time.Second        // of a statement
	leadPause    = time.Second            // after a term that ended by itself, and between two connections
)

// Shared reports whether several processes may serve from the database: it is in PostgreSQL.
func (s *Store) Shared() bool { return s.postgres != nil }

// Join makes this process one of the replicas that serve from the database, until ctx ends
// and what Lead began has ended. It has a connection of its own, and another when that is cut
// off; the leader holds a lock of its session there. Only a database that is Shared has
// replicas. The error is nil, or a *router.FixError: the process is not like the others.
func (s *Store) Join(ctx context.Context, m router.Member) error {
	p := &seat{s: s, member: m}
	for {
		err := p.watch(ctx)
		var odd *oddError
		if errors.As(err, &odd) {
			p.wait()
			return odd.FixError
		}
		if ctx.Err() != nil {
			p.wait()
			return nil
		}
		m.Lost(s.postgres.fault(err))
		router.Pause(ctx, leadPause)
	}
}

// Tell tells the other replicas something for which the leader need not wait for its next tick.
func (s *Store) Tell(ctx context.Context, hint string) error {
	_, err := s.write.ExecContext(ctx, "SELECT pg_notify('switchyard_' || hashtext(current_schema()), $1)", hint)
	return s.postgres.fault(err)
}

// An oddError is the error of a process that is not like the other replicas.
type oddError struct{ *router.FixError }

// A seat is the place of a process among the replicas.
type seat struct {
	s      *Store
	member router.Member

	// Of the connection in hand.
	conn    *pgx.Conn
	backend string // as in replicas
	said    string // what the row there says
	wrong   bool   // the clock is too far from the database's for this process to lead

	// Of the term that this process began, which may outlast the connection.
	term   context.Context // ends when Lead has returned; nil: there is none
	cancel func()          // ends what Lead does
	again  time.Time       // no new term before
}

// watch takes part by one connection until that fails, or ctx ends and the term is over.
func (p *seat) watch(ctx context.Context) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	defer p.leave()
	var next time.Time
	for {
		if now := time.Now(); !now.Before(next) {
			next = now.Add(lookEvery)
			if err := p.look(ctx); err != nil {
				return err
			}
		}
		if err := p.elect(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil && p.term == nil {
			return ctx.Err()
		}
		if err := p.listen(ctx, min(electEvery, time.Until(next))); err != nil {
			return err
		}
	}
}

// connect connects and takes a place among the replicas.
func (p *seat) connect(ctx context.Context) error {
	said, err := p.facts()
	if err != nil {
		return err
	}
	config := p.s.postgres.fresh()
	config.OnNotification = func(c *pgconn.PgConn, n *pgconn.Notification) {
		if n.PID != c.PID() {
			p.member.Hear(n.Payload)
		}
	}
	within, cancel := context.WithTimeout(ctx, beginTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(within, config)
	if err != nil {
		return err
	}
	p.conn, p.said = conn, said
	err = p.query(ctx, []any{&p.backend}, `
WITH gone AS (DELETE FROM replicas WHERE backend NOT IN (SELECT pid || ' ' || backend_start FROM pg_stat_activity WHERE backend_start IS NOT NULL))
INSERT INTO replicas (backend, said) SELECT pid || ' ' || backend_start, $1 FROM pg_stat_activity WHERE pid = pg_backend_pid() RETURNING backend`, p.said)
	var channel string
	if err == nil {
		err = p.query(ctx, []any{&channel}, "SELECT 'switchyard_' || hashtext(current_schema())")
	}
	if err == nil {
		_, err = conn.Exec(within, "LISTEN "+pgx.Identifier{channel}.Sanitize())
	}
	if err != nil {
		p.leave()
	}
	return err
}

// leave ends the connection, and the term with it.
func (p *seat) leave() {
	if p.cancel != nil {
		p.cancel()
	}
	ctx, cancel := context.WithTimeout(context.Background(), watchTimeout)
	defer cancel()
	_ = p.conn.Close(ctx)
}

// query reads the row that a statement returns.
func (p *seat) query(ctx context.Context, into []any, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchTimeout) // the end of ctx must not cut the connection off, as a term may be under way
	defer cancel()
	return p.conn.QueryRow(ctx, statement, args...).Scan(into...)
}

// facts returns what the others are to know, as the row says it.
func (p *seat) facts() (string, error) {
	text, err := json.Marshal(p.member.Facts())
	return string(text), err
}

// leads reports whether a term of this process is not over.
func (p *seat) leads() bool { return p.term != nil && p.term.Err() == nil }

// wait waits for the end of the term.
func (p *seat) wait() {
	if p.term != nil {
		<-p.term.Done()
	}
}

// elect makes this process the leader if there is none, and ends its part of a term that is over.
func (p *seat) elect(ctx context.Context) error {
	if p.leads() {
		return nil
	}
	if p.term != nil {
		p.term, p.again = nil, time.Now().Add(leadPause)
		if err := p.query(ctx, []any{new(any), new(any)}, "SELECT pg_advisory_unlock($1, hashtext(current_schema())), pg_notify('switchyard_' || hashtext(current_schema()), '')", leaderLock); err != nil {
			return err
		}
	}
	if ctx.Err() != nil || p.wrong || time.Now().Before(p.again) {
		return nil
	}
	ours := false
	if err := p.query(ctx, []any{&ours}, "SELECT pg_try_advisory_lock($1, hashtext(current_schema()))", leaderLock); err != nil || !ours {
		return err
	}
	epoch, err := p.s.begin(ctx, p.member.Facts().Name)
	if err != nil { // perhaps as another keeps all from making changes, which look sees
		p.member.Lost(fmt.Errorf("begin a term: %w", err))
		p.again = time.Now().Add(leadPause)
		return p.query(ctx, []any{new(any)}, "SELECT pg_advisory_unlock($1, hashtext(current_schema()))", leaderLock)
	}
	term, ended := context.WithCancel(context.Background())
	within, cancel := context.WithCancel(router.WithTerm(ctx, epoch))
	p.term, p.cancel = term, cancel
	go func() {
		defer ended()
		if err := p.member.Lead(within); err != nil && within.Err() == nil {
			p.member.Lost(fmt.Errorf("lead: %w", err))
		}
	}()
	return nil
}

const beginTermSQL = `UPDATE leader SET epoch = epoch + 1, name = ?1, since = ?2 RETURNING epoch`

// begin begins a term and returns its number. The changes of terms before are refused from
// then on.
func (s *Store) begin(ctx context.Context, name string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (epoch int64, err error) {
		err = t.query(into(&epoch), beginTermSQL, name, time.Now().UnixMilli())
		return epoch, err
	})
}

// ofLock is the condition for the lock $1 of this schema, as pg_locks has it.
const ofLock = `l.locktype = 'advisory' AND l.classid::bigint = $1 AND l.objid::bigint = (hashtext(current_schema())::bigint & 4294967295)
	AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// endStuckSQL ends the session of a process that has begun a transaction, for which others
// wait, and does nothing in it: it is frozen, or gone.
const endStuckSQL = `
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.granted AND ` + ofLock + `
WHERE a.state = 'idle in transaction' AND a.state_change < clock_timestamp() - interval '` + stuckChange + `'
	AND EXISTS (SELECT 1 FROM pg_locks l WHERE NOT l.granted AND ` + ofLock + `)`

const lookSQL = `
SELECT clock_timestamp(), r.backend, r.said, l.pid IS NOT NULL, l.pid IS NOT NULL AND a.state = 'idle' AND a.state_change < clock_timestamp() - interval '` + silentLeader + `'
FROM replicas r JOIN pg_stat_activity a ON a.pid || ' ' || a.backend_start = r.backend
LEFT JOIN pg_locks l ON l.pid = a.pid AND l.granted AND ` + ofLock + `
ORDER BY a.backend_start, a.pid`

// look says what has changed here, and reads what the others say. It ends the session of a
// leader that is silent, and one that keeps all from making changes.
func (p *seat) look(ctx context.Context) error {
	said, err := p.facts()
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchTimeout)
	defer cancel()
	if said != p.said {
		if _, err := p.conn.Exec(within, "UPDATE replicas SET said = $2 WHERE backend = $1", p.backend, said); err != nil {
			return err
		}
		p.said = said
	}
	if _, err := p.conn.Exec(within, endStuckSQL, changesLock); err != nil {
		return err
	}
	began := time.Now()
	rows, err := p.conn.Query(within, lookSQL, leaderLock)
	if err != nil {
		return err
	}
	type row struct {
		now           time.Time
		backend, said string
		leads, silent bool
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (one row, err error) {
		err = r.Scan(&one.now, &one.backend, &one.said, &one.leads, &one.silent)
		return one, err
	})
	if err != nil {
		return err
	}
	all, self := make([]router.Replica, len(list)), -1
	for i, r := range list {
		if err := json.Unmarshal([]byte(r.said), &all[i]); err != nil {
			return fmt.Errorf("read what a replica says: %w", err)
		}
		all[i].Leads, all[i].Self = r.leads, r.backend == p.backend
		if all[i].Self {
			self = i
			all[i].Ahead = p.ahead(r.now, began)
			p.wrong = all[i].Ahead.Abs() > router.MostAhead
		}
		if r.silent && !all[i].Self {
			if _, err := p.conn.Exec(within, endBackend, r.backend); err != nil {
				return err
			}
		}
	}
	if self < 0 {
		return errors.New("this replica's row is gone")
	}
	for _, older := range all[:self] {
		if err := odd(all[self], older); err != nil {
			return err
		}
	}
	p.member.Seen(all)
	return nil
}

// ahead returns by how much this process's clock is ahead of the database's, which said now
// in a statement that began then and has ended.
func (p *seat) ahead(now, began time.Time) time.Duration {
	wall := p.member.Now().Add(-time.Since(began) / 2)
	return wall.Sub(now)
}

// odd returns an *oddError if a replica cannot work beside one that is there already.
func odd(r, older router.Replica) error {
	switch {
	case r.PublicURL != older.PublicURL:
		return &oddError{&router.FixError{
			Fix: "start all replicas with the same --public-url, that of their load balancer, or give this one a database of its own",
			Err: fmt.Errorf("the database is in use by the replica %s, whose runners reach it at %s, not at %s", older.Name, older.PublicURL, r.PublicURL),
		}}
	case !r.Nomad.Same(older.Nomad):
		return &oddError{&router.FixError{
			Fix: "set NOMAD_ADDR to the same cluster, or give this replica a database of its own",
			Err: fmt.Errorf("the database is in use by the replica %s, which starts runners on another Nomad cluster, or in another of its regions", older.Name),
		}}
	}
	return nil
}

// listen waits for what others tell, or until ctx or the term ends, for a while at most.
func (p *seat) listen(ctx context.Context, most time.Duration) error {
	waiting, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	if ctx.Err() == nil {
		defer context.AfterFunc(ctx, cancel)()
	}
	if p.term != nil {
		defer context.AfterFunc(p.term, cancel)()
	}
	if _, err := p.conn.WaitForNotification(waiting); err != nil && waiting.Err() == nil {
		return err
	}
	return nil
}
