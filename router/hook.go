package router

import (
	"context"
	"fmt"
	"time"
)

// A Hook is a webhook on GitHub that sends its deliveries here.
type Hook struct {
	Kind  HookKind // "": unknown, or GitHub does not list the deliveries of its kind
	ID    int64    // Instance.ID of GitHub's ID, which is 0 for an App
	Owner string   // "" for an App
	Repo  string   // of a repository's webhook, without the owner; else ""
}

// String returns the hook's name for people.
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

// Key returns what identifies the hook, whatever its owner and repository are.
func (h Hook) Key() HookKey { return HookKey{h.Kind, h.ID} }

// A HookKind says what a webhook on GitHub belongs to. It is the value of the
// header X-GitHub-Hook-Installation-Target-Type.
type HookKind string

// The kinds of webhooks whose deliveries GitHub lists.
const (
	HookApp          HookKind = "integration" // the App that Switchyard logs in as; it has one
	HookOrganization HookKind = "organization"
	HookRepository   HookKind = "repository"
)

// How many hooks the store keeps. A delivery names its hook in headers that its
// signature does not cover: whoever has seen a body can send it again with any hook.
const (
	// MaxHooks is how many are kept beside the App's. An organization with a webhook
	// in each repository may have many; a sweep makes a request for each.
	MaxHooks = 2000

	// MaxUnprovedHooks is how many of one repository, or of one organization, are kept
	// before GitHub has listed deliveries of them. GitHub allows 20; one is usual.
	MaxUnprovedHooks = 4
)

// A HookSweep is a hook and how far its deliveries were swept.
type HookSweep struct {
	Hook
	Swept  time.Time // earlier deliveries are done with
	Newest time.Time // the newest delivery of the sweep under way; zero: none
	Cursor string    // where the sweep under way continues; "": none is under way
	Heard  time.Time // roughly when a delivery's headers last named the hook; zero: not known
	Proved bool      // GitHub has listed deliveries of it
}

// A SentDelivery is an attempt of GitHub's to make a delivery.
type SentDelivery struct {
	ID     int64     // of this attempt
	GUID   string    // Delivery.ID, the same for all attempts
	At     time.Time // by GitHub's clock
	OK     bool      // it was answered with 2xx
	Said   string    // how it ended, in GitHub's words, such as "Invalid HTTP Response: 401"
	Event  string
	Action string // "" when the event has none
}

// A Redelivery is a delivery that never arrived.
type Redelivery struct {
	GUID       string
	Hook       Hook
	DeliveryID int64 // of its newest attempt that is known
	Tries      int   // how often GitHub was asked to redeliver it
}

// Webhooks is the part of GitHub that lists and repeats deliveries. Errors
// are classified as for Nomad.Start. Safe for concurrent use.
type Webhooks interface {
	// OwnHooks returns the webhooks of the Apps that Switchyard logs in as.
	OwnHooks() []Hook

	// Deliveries lists a page of a hook's deliveries, newest first: the first page if
	// cursor is "", else the page that an earlier call returned as next. next is "" on
	// the last page. ErrNotFound: GitHub knows no such hook, or does not show it to us.
	Deliveries(ctx context.Context, h Hook, cursor string) (page []SentDelivery, next string, err error)

	// Delivery returns the body of a delivery that Deliveries listed, with the event's fields
	// as GitHub sent them, and whatever strangers wrote in them. It can be large. Nobody signs
	// it: it is as trustworthy as the connection to GitHub.
	Delivery(ctx context.Context, h Hook, deliveryID int64) (body []byte, err error)

	// DeliveryLimit returns the rate limit that GitHub counts requests for a hook's
	// deliveries by, as its last answer said, and how much of it, in percent, is kept from
	// those marked by ForJobs. A Limit of 0: not known, or there is none.
	DeliveryLimit(h Hook) (limit RateLimit, keptPercent int)

	// Redeliver has GitHub repeat a delivery, with the same GUID. It does not wait
	// for the delivery.
	Redeliver(ctx context.Context, h Hook, deliveryID int64) error
}

// A HookKey identifies a hook, whatever its owner and repository are. It is comparable.
type HookKey struct {
	kind HookKind
	id   int64
}
