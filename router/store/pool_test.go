package store

import (
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// Statements are kept up to a bound, whoever asks first, and all are answered.
func TestAPoolKeepsItsStatements(t *testing.T) {
	s := openTemp(t)
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for i := range maxStmts + 50 {
				for range 2 {
					var got int
					err := s.read.querier(t.Context())(func(rows *sql.Rows) error { return rows.Scan(&got) }, fmt.Sprintf("SELECT %d + ?", i), 1)
					if err != nil || got != i+1 {
						t.Errorf("%d + 1 is %d, err %v", i, got, err)
					}
				}
			}
		})
	}
	asking.Wait()
	if n := len(s.read.stmts); n < maxStmts || n > maxStmts+4 {
		t.Errorf("%d statements are kept, want %d", n, maxStmts)
	}
}

func TestThePoolsTellWhoIsAsked(t *testing.T) {
	s := openTemp(t)
	conn, err := s.asked.db.Conn(t.Context())
	must(t, err)
	defer conn.Close()
	pools := s.Pools()
	if len(pools) != 2 || pools["operators"].InUse != 1 || pools["router"].InUse != 0 {
		t.Errorf("an operator's question is in progress: %+v", pools)
	}
}

func TestEachCommitIsTold(t *testing.T) {
	s := openTemp(t)
	must(t, s.SetMark(t.Context(), "a", "1"))
	var told []int
	s.OnCommit(func(changes int, took time.Duration) {
		if told = append(told, changes); took < 0 {
			t.Errorf("it took %v", took)
		}
	})
	must(t, s.SetMark(t.Context(), "a", "2"))
	must(t, s.SetMark(t.Context(), "a", "3"))
	if !slices.Equal(told, []int{1, 1}) {
		t.Errorf("told of commits of %v changes, want 1 and 1", told)
	}
}
