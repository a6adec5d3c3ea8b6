package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
)

func openTemp(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestQueriesUseTheirIndexes(t *testing.T) {
	s := openTemp(t)
	for _, tt := range []struct{ query, want string }{
		{dueSQL, "SEARCH jobs USING INDEX jobs_due (due_at<?)"}, // in its order, to the limit
		{dueNextSQL, "SEARCH jobs USING INDEX jobs_due (due_at>?)"},
		{dueAfterSQL, "SCAN jobs USING INDEX jobs_due"},
		{jobSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{pastSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid>?)"},
		{countsSQL, "SCAN jobs USING COVERING INDEX jobs_state"},
		{openCountsSQL, "SEARCH jobs USING COVERING INDEX jobs_state (state=?)"},
		{runnersSQL, "(job_id=?)"},
		{claimantSQL, "SEARCH claims USING PRIMARY KEY (token_hash=?)"},
		{claimantSQL, "SEARCH runners USING PRIMARY KEY (id=?)"},
		{leftoversSQL, "SEARCH r USING INDEX runners_live (state=?)"},
		{leftoversSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{leftoversOfSQL, "(job_id=?)"},
		{reusableSQL, "SEARCH r USING PRIMARY KEY (id=?)"},
		{namesakeSQL, "(name=?)"},
		{runnerBusySQL, "(name=?)"},
		{runnerFinishedSQL, "(name=?)"},
		{freeRunnerSQL, "(job_id=? AND try=?)"},
		{unknownRunnersSQL, "SEARCH runners USING PRIMARY KEY (id=?)"},
		{unknownRunnersSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{claimedSQL, "SCAN runners USING INDEX runners_claimed"},
		{countPlacedSQL, "SEARCH jobs USING COVERING INDEX jobs_limit (limit_key=? AND state=?)"},
		{someoneWaitsSQL, "SEARCH jobs USING COVERING INDEX jobs_next (limit_key=?)"},
		{placeUnderSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{reorderSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{releaseHeldSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{waitedForSQL, "SCAN jobs USING COVERING INDEX jobs_next"},
		{heldUnderSQL, "SEARCH jobs USING COVERING INDEX jobs_next (limit_key=?)"},
		{seenRunnerSQL, "SEARCH runners USING INDEX runners_nomad (nomad_job=?)"},
		{setRunningReasonSQL, "INDEX jobs_runner (runner_name=?)"},
		{fallbackDueSQL, "SEARCH jobs USING INDEX jobs_fallback (fallback_at<?)"},
		{prunableSQL, "SEARCH jobs USING INDEX jobs_completed (updated_at<?)"},
		{prunableForeignSQL, "SEARCH jobs USING INDEX jobs_foreign (updated_at<?)"},
		{toDispatchSQL, "SEARCH r USING PRIMARY KEY (id=?)"},
		{wasDispatchedSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{warmSQL, "USING INDEX warm_live"},
		{warmOfSQL, "SEARCH warm USING INDEX warm_token (token_hash=?)"},
		{toDispatchSQL, "SEARCH claims USING PRIMARY KEY (token_hash=?)"},
		{prepareJobSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{unrecordedSQL, "SEARCH deliveries USING PRIMARY KEY (id=?)"},
		{copiesSQL, "SEARCH deliveries USING COVERING INDEX deliveries_digest (digest=?)"},
		{endedJobSQL, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		{endedRunningSQL, "SEARCH s USING INDEX jobs_runner (runner_name=?)"},
		{runningReasonSQL, "SEARCH s USING INDEX jobs_runner (runner_name=?)"},
	} {
		plan := plan(t, s, tt.query)
		if !strings.Contains(plan, tt.want) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("the plan of %s\nis %s\nwant %s", tt.query, plan, tt.want)
		}
		for line := range strings.Lines(plan) {
			if strings.HasPrefix(line, "SCAN") && !strings.Contains(line, "USING") && !strings.Contains(line, "json_each") {
				t.Errorf("%s\nscans: %s", tt.query, plan)
			}
		}
	}
}

// They sort, or drop repeated rows of, what has not ended or ended lately.
func TestWhatIsReadNowAndThenReadsNoHistory(t *testing.T) {
	s := openTemp(t)
	for query, want := range map[string]string{
		staleSQL:   "SEARCH jobs USING INDEX jobs_state (state=?)",
		targetsSQL: "SEARCH jobs USING INDEX jobs_completed (updated_at>?)",
	} {
		if plan := plan(t, s, query); !strings.Contains(plan, want) || strings.Contains(plan, "SCAN jobs") || strings.Contains(plan, "SCAN runners") {
			t.Errorf("the plan of %s\nis %s\nwant %s", query, plan, want)
		}
	}
}

// Usage reads all jobs of a period, and of each no more than an index has.
func TestUsageReadsTheIndexAlone(t *testing.T) {
	s := openTemp(t)
	if got := plan(t, s, firstEndedSQL); !strings.Contains(got, "USING COVERING INDEX jobs_ended") || strings.Contains(got, "TEMP B-TREE") {
		t.Errorf("the plan of %s\nis %s", firstEndedSQL, got)
	}
	for _, by := range router.UsageBys {
		var asked []string
		q := func(_ func(*sql.Rows) error, query string, _ ...any) error {
			asked = append(asked, plan(t, s, query))
			return nil
		}
		f := router.UsageFilter{By: by, Within: router.Scope{"acme/*", "ghe.example/beta/web"}}
		must(t, reads{func(context.Context) querier { return q }}.Usage(t.Context(), f, nil))
		for i, want := range [][]string{
			{"SEARCH jobs USING COVERING INDEX jobs_ended (completed_at>? AND completed_at<?)"},
			{"SEARCH r USING INDEX runners_given_up (state=?)", "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"},
		} {
			for _, step := range want {
				if !strings.Contains(asked[i], step) || strings.Contains(asked[i], "TEMP B-TREE") {
					t.Errorf("by %s: the plan is %s\nwant %s", by, asked[i], step)
				}
			}
		}
	}
}

// They skip from one owner, or repository, to the next.
func TestQueriesForATurnSkipTheJobsOfOne(t *testing.T) {
	s := openTemp(t)
	for query, want := range map[string][]string{
		dueOwnersSQL:  {"SEARCH jobs USING INDEX jobs_turn ((host,owner)>(?,?))", "SEARCH n USING INDEX jobs_turn (host=? AND owner>?)", "SEARCH n USING INDEX jobs_turn (host>?)"},
		dueOfReposSQL: {"SEARCH jobs USING INTEGER PRIMARY KEY", "SEARCH n USING INDEX jobs_turn (host=? AND owner=? AND repo=? AND due_at<?)"},
		dueReposSQL:   {"SEARCH jobs USING INDEX jobs_turn (host=? AND owner=? AND repo>?)", "SEARCH n USING INDEX jobs_turn (host=? AND owner=? AND repo>?)"},
	} {
		plan := plan(t, s, query)
		for _, want := range want {
			if !strings.Contains(plan, want) || strings.Contains(plan, "TEMP B-TREE") {
				t.Errorf("the plan of %s\nis %s\nwant %s", query, plan, want)
			}
		}
	}
}

// Whoever saw a delivery once fills no database with it.
func TestTheSameBytesAreAFewRows(t *testing.T) {
	s := openTemp(t)
	for i := range 100 {
		d := router.Delivery{ID: fmt.Sprint(i), Digest: "the same", Action: "queued", Status: "queued", ReceivedAt: time.Now(), Job: router.Job{
			ID: 1, RunID: 1, Attempt: 1, Labels: []string{"linux"}, Repo: router.Repo{Owner: "acme", Name: "web"},
		}}
		if changed, err := s.Receive(t.Context(), d); err != nil || changed != (i == 0) {
			t.Fatalf("delivery %d: %v, %v", i, changed, err)
		}
	}
	n := 0
	if err := s.read.QueryRowContext(t.Context(), "SELECT count(*) FROM deliveries").Scan(&n); err != nil || n != maxCopies {
		t.Errorf("%d rows, %v; want %d", n, err, maxCopies)
	}
}

// What is asked at each start and end of a job finds nothing, but of a crowd in which one waits.
func TestSiblingsAreFoundByTheirCrowd(t *testing.T) {
	s := openTemp(t)
	for query, want := range map[string][]string{
		waitingCrowdSQL:     {"SEARCH j USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH c USING PRIMARY KEY (key=?)", "SEARCH k USING PRIMARY KEY (key=?)", "SEARCH p USING INDEX jobs_crowd (crowd=? AND state=?)"},
		crowdSQL:            {"SEARCH j USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH c USING PRIMARY KEY (key=?)", "SEARCH k USING PRIMARY KEY (key=?)", "SEARCH p USING INDEX jobs_crowd (crowd=? AND state=?)"},
		giveSiblingPlaceSQL: {"SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH c USING PRIMARY KEY (key=?)", "SEARCH p USING INDEX jobs_crowd (crowd=? AND state=?)"},
		releaseSiblingsSQL:  {"SEARCH jobs USING INDEX jobs_limit (limit_key=? AND state=?)"},
		heldCrowdsSQL:       {"SEARCH jobs USING INDEX jobs_state (state=?)"},
		receiveQueuedSQL:    {"SEARCH crowds USING PRIMARY KEY (key=?)"},
	} {
		plan := plan(t, s, query)
		for _, want := range want {
			if !strings.Contains(plan, want) || strings.Contains(plan, "SCAN") {
				t.Errorf("the plan of %s\nis %s\nwant %s", query, plan, want)
			}
		}
	}
}

// They sort what they find by age: jobs of one fit, or under one limit, that wait.
func TestQueriesForAPlaceUseTheIndexesOfFitsAndLimits(t *testing.T) {
	s := openTemp(t)
	for query, want := range map[string][]string{
		releaseSQL: {"SEARCH jobs USING INDEX jobs_limit (limit_key=? AND state=?)", "SEARCH jobs USING COVERING INDEX jobs_next (limit_key=?)",
			"SEARCH n USING COVERING INDEX jobs_next (limit_key=? AND urgency>?)", "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)",
			"SEARCH jobs USING COVERING INDEX jobs_next (limit_key=? AND urgency=? AND received_at<?)"},
		ranSQL:         {"SEARCH jobs USING INDEX jobs_rule (<expr>=?)"},
		placedUnderSQL: {"SEARCH jobs USING INDEX jobs_limit (limit_key=? AND state=?)"},
	} {
		plan := plan(t, s, query)
		for _, want := range want {
			if !strings.Contains(plan, want) || strings.Contains(plan, "SCAN jobs") {
				t.Errorf("the plan of %s\nis %s\nwant %s", query, plan, want)
			}
		}
	}
	for _, query := range []string{withoutRunnerSQL, withoutClaimSQL} {
		if plan := plan(t, s, query); !strings.Contains(plan, "USING INDEX jobs_fit (fit=? AND state=?)") || !strings.Contains(plan, "(job_id=? AND try=?)") {
			t.Errorf("the plan of %s\nis %s", query, plan)
		}
	}
}

func TestWhatOperatorsLookForHasAnIndex(t *testing.T) {
	s := openTemp(t)
	for want, some := range map[string][]router.JobFilter{
		"INDEX jobs_owner ":                {{Owner: "acme"}, {Within: router.Scope{"acme/*"}}, {Within: router.Scope{"acme/*"}, Label: "x", Rule: "linux"}},
		"INDEX jobs_repo ":                 {{Repo: "web"}, {Owner: "acme", Repo: "web", Label: "x"}, {Within: router.Scope{"acme/web", "ghe.example/acme/app"}}},
		"INDEX jobs_rule ":                 {{Rule: "linux"}, {Rule: "linux", Owner: "acme", States: []router.JobState{router.Completed}}},
		"INDEX jobs_received ":             {{Since: time.Unix(1, 0)}, {Until: time.Unix(1, 0)}},
		"INDEX jobs_host ":                 {{Host: "ghe.example"}},
		"INDEX jobs_cause ":                {{Causes: []router.Cause{router.CauseRunnerEnded}, States: []router.JobState{router.Completed}}},
		"INDEX jobs_state ":                {{States: []router.JobState{router.Held}}, {States: []router.JobState{router.Queued}, Owner: "acme", Label: "x"}},
		"job_labels USING PRIMARY KEY (la": {{Label: "x"}, {Label: "x", Owner: "acme", Rule: "linux"}, {Label: strings.Repeat("x", 65), Since: time.Unix(1, 0)}},
	} {
		for _, f := range some {
			q := func(_ func(*sql.Rows) error, query string, _ ...any) error {
				plan := plan(t, s, query)
				if strings.HasPrefix(query, "SELECT count") { // whether an index has few
					if !strings.Contains(plan, "COVERING INDEX") && !strings.Contains(plan, "PRIMARY KEY (label=?)") && !strings.Contains(plan, "INDEX jobs_rule ") {
						t.Errorf("the plan of %s\nis %s", query, plan)
					}
					return nil
				}
				ids := strings.Contains(query, "OFFSET") // only to where the search looks
				if !strings.Contains(plan, want) || !ids && !strings.Contains(plan, "LIST SUBQUERY") || strings.Contains(plan, "SCAN jobs\n") {
					t.Errorf("the plan of %s\nis %s\nwant %s", query, plan, want)
				}
				return nil
			}
			if _, err := (reads{func(context.Context) querier { return q }}).FindJobs(t.Context(), f); err != nil {
				t.Error(err)
			}
			if _, _, err := (reads{func(context.Context) querier { return q }}).SearchJobs(t.Context(), f); err != nil {
				t.Error(err)
			}
		}
	}
	for _, f := range []router.RunnerFilter{{Within: router.Scope{"acme/web"}}, {Within: router.Scope{"acme/web"}, States: router.RunnerStates}} {
		q := func(_ func(*sql.Rows) error, query string, _ ...any) error {
			if plan := plan(t, s, query); strings.Contains(plan, "SCAN runners USING INDEX sqlite") || strings.Contains(plan, "SCAN jobs") {
				t.Errorf("the plan of %s\nis %s", query, plan)
			}
			return nil
		}
		if _, _, err := (reads{func(context.Context) querier { return q }}).SearchRunners(t.Context(), f); err != nil {
			t.Error(err)
		}
	}
}

// Of two bounds SQLite takes one, and then walks from there: each page of a history would begin at the newest job.
func TestASearchHasOneBoundEachWay(t *testing.T) {
	s := search{f: router.JobFilter{Since: time.Unix(1, 0), Until: time.Unix(2, 0), Before: 50}, from: 3, times: &[2]int64{5, 100}}
	var where condition
	must(t, s.within(&where, "id", false))
	if got := fmt.Sprint(where.String(), where.args); got != "id >= ? AND id <= ?[5 49]" {
		t.Errorf("it looks at %s", got)
	}
}

// The router waits for no question of an operator's.
func TestOperatorsHaveConnectionsOfTheirOwn(t *testing.T) {
	s := openTemp(t)
	for range readers {
		conn, err := s.Reader().db.Conn(t.Context())
		must(t, err)
		defer conn.Close()
	}
	if _, _, err := s.Due(t.Context(), time.Now(), nil, 1); err != nil {
		t.Error(err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Reader().FindJobs(done, router.JobFilter{Limit: 1}); err == nil {
		t.Error("operators read by another's connections")
	}
}

func plan(t *testing.T, s *Store, query string) string {
	t.Helper()
	args := make([]any, strings.Count(query, "?")) // as many as there are parameters, at least
	rows, err := s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	var plan strings.Builder
	err = each(rows, func(rows *sql.Rows) error {
		var id, parent, unused int
		var detail string
		err := rows.Scan(&id, &parent, &unused, &detail)
		plan.WriteString(detail + "\n")
		return err
	})
	must(t, err)
	return plan.String()
}

// A batch, run by hand.
func batch(w *writer, changes ...func(*tx) error) (errs []error) {
	var ops []*op
	for _, do := range changes {
		ops = append(ops, &op{do: do, done: make(chan struct{})})
	}
	w.commit(ops)
	for _, o := range ops {
		<-o.done
		errs = append(errs, o.err)
	}
	return errs
}

// byHand returns a store's writer without its goroutine.
func byHand(t *testing.T) *writer {
	t.Helper()
	s := openTemp(t)
	must(t, s.writer.stop())
	s.writer = nil
	conn, err := s.write.Conn(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &writer{conn: conn, stmts: map[string]*sql.Stmt{}, ops: make(chan *op, 1)}
}

func insert(id string) func(*tx) error {
	return func(t *tx) error {
		_, err := t.exec(deliverySQL, id, 1, "queued", 1, []byte{})
		return err
	}
}

func deliveries(t *testing.T, w *writer) (ids []string) {
	t.Helper()
	rows, err := w.conn.QueryContext(t.Context(), "SELECT id FROM deliveries ORDER BY id")
	must(t, err)
	err = each(rows, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	must(t, err)
	return ids
}

func TestAFailingChangeLeavesNothingAndSpoilsNothing(t *testing.T) {
	w := byHand(t)
	boom := errors.New("boom")
	errs := batch(w, insert("a"), func(tx *tx) error {
		_ = insert("half")(tx)
		return boom
	}, insert("b"))
	if errs[0] != nil || !errors.Is(errs[1], boom) || errs[2] != nil {
		t.Errorf("got %v", errs)
	}
	if got := strings.Join(deliveries(t, w), " "); got != "a b" {
		t.Errorf("stored %s, want a b", got)
	}
}

// It is then not made again with the others, each apart.
func TestAChangeThatFailsBeforeItWritesIsMadeOnce(t *testing.T) {
	w, made := byHand(t), 0
	errs := batch(w, func(tx *tx) error {
		made++
		return insert("a")(tx)
	}, func(tx *tx) error {
		if waits, err := tx.moveJob(7, prepareJobSQL, "", 1, 0, "", ""); waits || !errors.Is(err, router.ErrNotFound) {
			t.Errorf("got %t, %v", waits, err)
		}
		return router.ErrNotFound
	})
	if errs[0] != nil || !errors.Is(errs[1], router.ErrNotFound) || made != 1 {
		t.Errorf("got %v, made %d times", errs, made)
	}
}

func TestAChangeThatComesMeanwhileIsOfTheSameCommit(t *testing.T) {
	w := byHand(t)
	late := &op{do: insert("b"), done: make(chan struct{})}
	if errs := batch(w, func(tx *tx) error {
		w.ops <- late
		return insert("a")(tx)
	}); errs[0] != nil {
		t.Error(errs[0])
	}
	select {
	case <-late.done:
	default:
		t.Error("it waits for the next commit")
	}
	if got := strings.Join(deliveries(t, w), " "); got != "a b" {
		t.Errorf("stored %s, want a b", got)
	}
}

func TestACrowdSharesItsCommits(t *testing.T) {
	const rounds = 10
	// The first who came may have waited for nobody.
	if commits, _ := crowded(t, 3*gatherAfter, rounds); commits > rounds+2 {
		t.Errorf("%d changes took %d commits, want about %d", 3*gatherAfter*rounds, commits, rounds)
	}
	if _, waited := crowded(t, gatherAfter, rounds); waited != 0 {
		t.Errorf("%d at a time waited %v for others", gatherAfter, waited)
	}
}

// crowded has so many make their changes at the same time, and returns how many commits that
// takes, and how long they wait for each other. A commit takes a millisecond, in which all others
// come to wait for the next one.
func crowded(t *testing.T, crowd, rounds int) (commits int, waited time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), filepath.Join(t.TempDir(), "s.db"))
		must(t, err)
		s.writer.ran = func(query string) {
			if query == "COMMIT" {
				commits++
				time.Sleep(time.Millisecond)
			}
		}
		began := time.Now()
		var all sync.WaitGroup
		for i := range crowd {
			all.Go(func() {
				for j := range rounds {
					if err := s.writer.change(t.Context(), router.SourceRouter, insert(fmt.Sprint(i, j))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		waited = time.Since(began) - time.Duration(commits)*time.Millisecond
		must(t, s.Close())
	})
	return commits, waited
}

func TestWhenTheCommitFailsAllFail(t *testing.T) {
	for name, spoil := range map[string]func(*tx) error{
		"a broken reference is found at the commit": func(tx *tx) error {
			if _, err := tx.exec("PRAGMA defer_foreign_keys = ON"); err != nil {
				return err
			}
			_, err := tx.exec(insertClaimSQL, []byte("hash"), "no such runner")
			return err
		},
		"SQLite rolls back by itself": func(tx *tx) error {
			if _, err := tx.exec("ROLLBACK"); err != nil {
				return err
			}
			return errors.New("disk full")
		},
		"SQLite rolls back by itself when it reads": func(tx *tx) error {
			if _, err := tx.w.conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
				return err
			}
			return tx.query(into(), `SELECT abs(-9223372036854775808)`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := byHand(t)
			for i, err := range batch(w, insert("a"), spoil, insert("b")) {
				if err == nil {
					t.Errorf("change %d says that it is durable", i)
				}
			}
			if errs := batch(w, insert("c")); errs[0] != nil {
				t.Errorf("the next batch fails: %v", errs[0])
			}
			if got := strings.Join(deliveries(t, w), " "); got != "c" {
				t.Errorf("stored %s, want c", got)
			}
		})
	}
}

func TestAChangeWhoseCallerLeftIsSkipped(t *testing.T) {
	s := openTemp(t)
	inHand, goOn := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		first <- s.writer.change(context.Background(), router.SourceRouter, func(*tx) error {
			close(inHand)
			<-goOn
			return nil
		})
	}()
	<-inHand
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		left <- s.writer.change(ctx, router.SourceRouter, func(*tx) error {
			t.Error("a change was made whose caller had left")
			return nil
		})
	}()
	for len(s.writer.ops) == 0 {
		time.Sleep(time.Millisecond) // until it waits
	}
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := s.Counts(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheSettingsThatDurabilityRestsOn(t *testing.T) {
	s := openTemp(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "fullfsync": "1"} {
		var got string
		if err := s.writer.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", pragma, got, err, want)
		}
	}
	if _, err := s.read.ExecContext(t.Context(), "DELETE FROM jobs"); err == nil {
		t.Error("a reader's connection writes")
	}
}

// What is told first is the newest change that can be told, though the job of a
// newer one is gone: from it on all are followed.
func TestTheNewestChangeIsOfAJobThatThereIs(t *testing.T) {
	s := openTemp(t)
	for id := int64(1); id <= 2; id++ {
		_, err := s.Receive(t.Context(), router.Delivery{ID: fmt.Sprint(id), Action: "queued", Status: "queued", ReceivedAt: time.Now(), Job: router.Job{
			ID: id, RunID: 1, Attempt: 1, Labels: []string{"linux"}, Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web"},
		}})
		must(t, err)
	}
	err := s.writer.change(t.Context(), router.SourceRouter, func(t *tx) error {
		_, err := t.exec(`DELETE FROM jobs WHERE id = ?1`, 2)
		return err
	})
	must(t, err)
	if list, err := s.Changes(t.Context(), -1, 10); err != nil || len(list) != 1 || list[0].JobID != 1 {
		t.Errorf("Changes(-1) = %+v, %v; want the one of job 1", list, err)
	}
}

// With too many webhooks the one heard of longest ago makes room, never the App's.
func TestTheWebhooksAreBounded(t *testing.T) {
	s := openTemp(t)
	saw := func(h router.Hook, at int64) {
		t.Helper()
		if known, err := s.RecordHook(t.Context(), h, time.UnixMilli(at), time.UnixMilli(at)); !known || err != nil {
			t.Fatalf("RecordHook(%s) = %t, %v", h, known, err)
		}
	}
	saw(router.Hook{Kind: router.HookApp}, 1)
	err := s.writer.change(t.Context(), router.SourceRouter, func(t *tx) error {
		for id := range int64(router.MaxHooks) {
			if _, err := t.exec(newHookSQL, router.HookRepository, id+1, "acme", fmt.Sprint(id+1), id+2, 0, 1); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
	saw(router.Hook{Kind: router.HookOrganization, ID: 5000, Owner: "acme"}, 1e6)
	hooks, err := s.Hooks(t.Context())
	if err != nil || len(hooks) != router.MaxHooks+1 || hooks[0].Kind != router.HookApp || hooks[1].ID != 5000 || hooks[router.MaxHooks].ID != 2 {
		t.Errorf("%d webhooks, %v, from %s to %s; want all but the first repository's", len(hooks), err, hooks[0].Hook, hooks[len(hooks)-1].Hook)
	}
}

// must fails the test if there is an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// errOf returns the error of a call whose other result does not matter.
func errOf[T any](_ T, err error) error { return err }
