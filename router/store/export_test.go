package store

import (
	"context"
	"database/sql"
	"slices"
	"strings"
)

// LookAt has a search look at so many jobs of an index, at most.
func (s *Store) LookAt(jobs int) {
	before := s.reads.querier
	s.reads.querier = func(ctx context.Context) querier {
		q := before(ctx)
		return func(scan func(*sql.Rows) error, query string, args ...any) error {
			if strings.HasSuffix(query, " OFFSET ?") {
				args = append(slices.Clone(args[:len(args)-1]), jobs)
			}
			return q(scan, query, args...)
		}
	}
}

// ForgetDemand forgets what runners asked for.
func (s *Store) ForgetDemand() { s.demands.one = nil }

// CountUpTo has jobs be counted each time, unless there are more than these.
func (s *Store) CountUpTo(jobs int) { s.counted.many = jobs }
