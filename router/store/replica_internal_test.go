package store

import (
	"context"
	"sync"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store/postgrestest"
)

// A process that is frozen in the middle of a change does not keep the others from theirs.
func TestATransactionThatIsLeftAloneIsEnded(t *testing.T) {
	t.Parallel()
	url := postgrestest.URL(t)
	frozen, err := Open(t.Context(), url)
	must(t, err)
	defer frozen.Close()
	other, err := Open(t.Context(), url)
	must(t, err)
	defer other.Close()
	begun, thaw, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	begins := sync.OnceFunc(func() { close(begun) })
	go func() {
		ended <- frozen.writer.change(t.Context(), router.SourceRouter, func(tx *tx) error {
			if _, err := tx.exec("SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil { // PostgreSQL does not end it
				return err
			}
			begins()
			<-thaw
			_, err := tx.exec("INSERT INTO marks (name, value) VALUES (?1, ?2)", "frozen", "was here")
			return err
		})
	}()
	<-begun
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		left <- other.Join(ctx, router.Member{
			Now:   time.Now,
			Facts: func() router.Replica { return router.Replica{Name: "other"} },
			Seen:  func([]router.Replica) {}, Hear: func(string) {}, Lost: func(err error) { t.Log(err) },
			Lead: func(ctx context.Context) error { <-ctx.Done(); return nil },
		})
	}()
	for other.SetMark(t.Context(), "other", "was here") != nil { // it waits for the frozen one
		time.Sleep(time.Millisecond)
	}
	close(thaw)
	must(t, <-ended) // it was made again, after the other's
	leave()
	must(t, <-left)
}
