package store

import (
	"context"
	"database/sql"
	"sync"
)

// A pool has connections that only read, and keeps the statements that they ran:
// to compile one takes several times as long as to run it. It is safe for
// concurrent use.
type pool struct {
	*sql.DB
	adapt func(query string, args []any) (string, []any) // as the database takes them; nil: as they are
	mu    sync.Mutex
	stmts map[string]*sql.Stmt // by SQL text
}

func newPool(db *sql.DB) *pool { return &pool{DB: db, stmts: map[string]*sql.Stmt{}} }

// maxStmts bounds the statements of a pool: those of filters have many forms.
const maxStmts = 200

// stmt returns the statement of a query; nil when the pool keeps no more.
func (p *pool) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	p.mu.Lock()
	s, full := p.stmts[query], len(p.stmts) >= maxStmts
	p.mu.Unlock()
	if s != nil || full {
		return s, nil
	}
	made, err := p.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.stmts[query]; s != nil { // another was faster
		return s, made.Close()
	}
	p.stmts[query] = made
	return made, nil
}

func (p *pool) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if p.adapt != nil {
		query, args = p.adapt(query, args)
	}
	s, err := p.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return p.QueryContext(ctx, query, args...)
	}
	return s.QueryContext(ctx, args...)
}

func (p *pool) querier(ctx context.Context) querier {
	return func(scan func(*sql.Rows) error, query string, args ...any) error {
		rows, err := p.query(ctx, query, args...)
		for try := 0; try < readers && p.adapt != nil && brokenConn(err) && ctx.Err() == nil; try++ { // each of them may have been
			rows, err = p.query(ctx, query, args...)
		}
		if err != nil {
			return err
		}
		return each(rows, scan)
	}
}
