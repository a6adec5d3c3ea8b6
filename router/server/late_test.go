package server_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router"
)

// An old delivery, that somebody saw and sends again when all of its job is
// forgotten, starts nothing; a job that waited for an approval for so long is served.
func TestALateDeliveryStartsNothingBeforeGitHubWasAsked(t *testing.T) {
	for name, tt := range map[string]struct {
		says router.Delivery
		want router.JobState
	}{
		"it has ended":         {router.Delivery{Action: "completed", Status: "completed"}, router.Completed},
		"it waited that long":  {router.Delivery{Action: "queued", Status: "queued"}, router.Dispatched},
		"it waits for others":  {router.Delivery{Action: "queued", Status: "pending"}, router.Held},
		"GitHub does not know": {router.Delivery{}, router.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nomad, asked := &cluster{}, make(chan int, 10)
				h := &hub{}
				h.job = func(id int64) (router.Delivery, error) {
					asked <- nomad.count()
					if tt.says.Action == "" {
						return router.Delivery{}, router.ErrNotFound
					}
					d := delivery(id, "queued", "self-hosted", "linux")
					d.ID, d.Source, d.Action, d.Status = "", router.SourceGitHub, tt.says.Action, tt.says.Status
					return d, nil
				}
				r := start(t, openStore(t), nomad, h)
				d := delivery(1, "queued", "self-hosted", "linux")
				d.CreatedAt = d.ReceivedAt.Add(-80 * time.Hour)
				r.deliver(d)
				r.await(1, func(j router.Job) bool { return j.State == tt.want && !strings.Contains(j.Reason, "GitHub is asked") })
				if n := <-asked; n != 0 {
					t.Errorf("Nomad had %d jobs when GitHub was asked", n)
				}
			})
		})
	}
}
