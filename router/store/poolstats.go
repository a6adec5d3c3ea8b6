package store

import "database/sql"

// Pools implements telemetry.Counter.
func (s *Store) Pools() map[string]sql.DBStats {
	return map[string]sql.DBStats{"router": s.read.Stats(), "operators": s.asked.db.Stats()}
}
