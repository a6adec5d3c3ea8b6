package router

import (
	"context"
	"fmt"
	"time"
)

// A Hook is a webhook on GitHub that sends its deliveries here.
type Hook struct {
	Kind  HookKind // "": unknown, or none that GitHub shows the deliveries of
	ID    int64    // Instance.ID of GitHub's, which is 0 for an App's
	Owner string   // "" for an App's
	Repo  string   // of a repository's, without the owner; else ""
}

func (h Hook) String() string {
	on := ""
	if n := InstanceOf(h.ID); n != 0 {
		on = fmt.Sprintf(" on GitHub %d", n)
	}
	switch h.Kind {
	case HookApp:
		return "the App's webhook" + on
	case HookOrganization:
		return fmt.Sprintf("webhook %d of organization %s%s", GitHubID(h.ID), h.Owner, on)
	}
	return fmt.Sprintf("webhook %d of repository %s/%s%s", GitHubID(h.ID), h.Owner, h.Repo, on)
}

// Key returns what the hook is known by.
func (h Hook) Key() HookKey { return HookKey{h.Kind, h.ID} }

// A HookKind says what a webhook on GitHub belongs to. It is the value of the
// header X-GitHub-Hook-Installation-Target-Type.
type HookKind string

// The kinds of webhooks whose deliveries GitHub shows.
const (
	HookApp          HookKind = "integration" // the App that Switchyard logs in as; it has one
	HookOrganization HookKind = "organization"
	HookRepository   HookKind = "repository"
)

// The bounds of the hooks in the store. Which hook a delivery came by is told by
// headers that its signature does not cover: whoever saw a body once can send it
// again with any.
const (
	// MaxHooks is how many are kept beside the App's. An organization that has one
	// for each repository may have many; a sweep of all is a request for each.
	MaxHooks = 2000

	// MaxUnprovedHooks is how many of one repository, or of one organization, are kept
	// before GitHub has listed deliveries of them. GitHub takes 20; mostly there is one.
	MaxUnprovedHooks = 4
)

// A HookSweep is a hook and how far its deliveries were looked through.
type HookSweep struct {
	Hook
	Swept  time.Time // those that were made before are done with
	Newest time.Time // of those that the sweep in hand has seen; zero: none
	Cursor string    // where that goes on; "": none is in hand
	Heard  time.Time // when a delivery's headers last named it, about; zero: not known
	Proved bool      // GitHub has listed deliveries of it
}

// A SentDelivery is what GitHub says of a delivery that it made, or tried to.
type SentDelivery struct {
	ID     int64     // of this attempt
	GUID   string    // Delivery.ID, the same for all attempts
	At     time.Time // of GitHub's clock
	OK     bool      // it was answered with 2xx
	Event  string
	Action string // "" when the event has none
}

// A Redelivery is a delivery that never arrived.
type Redelivery struct {
	GUID       string
	Hook       Hook
	DeliveryID int64 // of its newest attempt that is known
	Tries      int   // how often it was asked for again
}

// Webhooks is the part of GitHub that says what became of deliveries. Errors
// are sorted as for Nomad.Start. Safe for concurrent use.
type Webhooks interface {
	// OwnHooks returns the webhooks of the Apps that Switchyard logs in as.
	OwnHooks() []Hook

	// Deliveries lists a page of a hook's deliveries, newest first: the first
	// page, or the one that next of an earlier call names. next is "" on the last.
	// ErrNotFound: GitHub knows no such hook, or does not show it to us.
	Deliveries(ctx context.Context, h Hook, cursor string) (page []SentDelivery, next string, err error)

	// Redeliver has GitHub make a delivery again, with the same GUID. It does
	// not wait for that.
	Redeliver(ctx context.Context, h Hook, deliveryID int64) error
}

// A HookKey names a hook whatever its owner and repository are; it can be compared.
type HookKey struct {
	kind HookKind
	id   int64
}
