package store

import (
	"database/sql"
	"time"
)

// Pools implements telemetry.Counter.
func (s *Store) Pools() map[string]sql.DBStats {
	return map[string]sql.DBStats{"router": s.read.Stats(), "operators": s.asked.db.Stats()}
}

// OnCommit has f called after each transaction that was committed, with how many changes
// shared it and how long it took. The next one waits for f.
func (s *Store) OnCommit(f func(changes int, took time.Duration)) { s.writer.told.Store(&f) }
