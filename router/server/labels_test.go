package server_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/store"
)

// What a job asks for is kept once, and is not much: also of a job that nothing is to serve.
func TestLabelsAreStoredOnce(t *testing.T) { bubble(t, testLabelsAreStoredOnce) }
func testLabelsAreStoredOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	st, err := store.Open(t.Context(), path)
	must(t, err)
	defer st.Close()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	r := start(t, st, &cluster{}, &hub{})
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint(i, strings.Repeat("\U0001F600", 250)))
	}
	for id, tt := range map[int64]struct {
		labels []string
		want   router.JobState
		bytes  int
	}{
		1: {[]string{"self-hosted", "Linux", "linux"}, router.Dispatched, 2500},
		2: {many, router.Ignored, 22_000},
		3: {append([]string{"self-hosted"}, many...), router.Unroutable, 22_000},
	} {
		d := delivery(id, "queued", tt.labels...)
		d.Bound()
		r.deliver(d)
		j := r.await(id, in(tt.want))
		if id == 1 {
			if diff := cmp.Diff([]string{"self-hosted", "linux"}, j.Decision.Labels); diff != "" {
				t.Errorf("the labels that the rules saw (-want +got):\n%s", diff)
			}
		}
		var decision string
		size := 0
		err := db.QueryRowContext(t.Context(), `
SELECT decision, length(CAST(labels AS BLOB)) + length(CAST(decision AS BLOB)) + length(CAST(reason AS BLOB))
	+ (SELECT sum(length(CAST(what AS BLOB))) FROM events WHERE job_id = jobs.id)
	+ (SELECT sum(length(CAST(label AS BLOB)) + 8) FROM job_labels WHERE job_id = jobs.id) FROM jobs WHERE id = ?`, id).Scan(&decision, &size)
		must(t, err)
		if size > tt.bytes || !strings.Contains(decision, `"labels":null`) {
			t.Errorf("job %d takes %d bytes, want %d at most, and no labels in its decision: %.300s", id, size, tt.bytes, decision)
		}
	}
}
