package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"switchyard/router"
)

const auditSQL = `INSERT INTO audit (at, who, login, address, did, what, result) VALUES (?, ?, ?, ?, ?, ?, ?)`

// Audit implements web.AuditTrail.
func (s *Store) Audit(ctx context.Context, a router.Audit) error {
	err := s.exec(ctx, router.SourceOperator, auditSQL, millis(a.At), a.Who, a.By, a.From, a.Did, a.What, a.Result)
	if err != nil {
		return fmt.Errorf("record that %s did %s: %w", a.Who, a.Did, err)
	}
	return nil
}

const auditsSQL = `SELECT id, at, who, login, address, did, what, result FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2`

// Audits implements web.AuditTrail.
func (s *Store) Audits(ctx context.Context, before int64, limit int) ([]router.Audit, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	return list(s.asked.querier(ctx), "read the audit trail", func(rows *sql.Rows, a *router.Audit) error {
		var at int64
		err := rows.Scan(&a.ID, &at, &a.Who, &a.By, &a.From, &a.Did, &a.What, &a.Result)
		a.At = fromMillis(at)
		return err
	}, auditsSQL, before, limit)
}
