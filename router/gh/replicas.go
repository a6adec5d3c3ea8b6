package gh

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"switchyard/router"
)

// maxBlocks bounds the blocks of one GitHub that replicas tell each other.
const maxBlocks = 256

// sharedLimits are Limits that all replicas keep together.
type sharedLimits struct {
	Limits
	replicas atomic.Int64 // 0 counts as 1
}

// part returns what this process may use of a limit; negative: there is none.
func (l *sharedLimits) part(most int) int {
	if most < 0 {
		return most
	}
	return max(most/int(max(l.replicas.Load(), 1)), 1)
}

// divided says, for people, how much of a limit is this process's; "" when it is all.
func (l *sharedLimits) divided(most int) string {
	n := l.replicas.Load()
	if n <= 1 {
		return ""
	}
	return fmt.Sprintf(" (%d for each of %d replicas)", l.part(most), n)
}

// The forms of logins in Blocked, after their host and a slash.
var loginForm = regexp.MustCompile(`^(token/[0-9a-f]{16}|app/[0-9]{1,19}(/installation/[0-9]{1,19})?)$`)

// tokenLogin names a token by the start of its SHA-256, as another token may have other limits.
func tokenLogin(token router.Secret) string {
	sum := sha256.Sum256([]byte(token))
	return fmt.Sprintf("token/%x", sum[:8])
}

func appLogin(id int64) string { return fmt.Sprintf("app/%d", id) }

func installationLogin(app, id int64) string {
	return fmt.Sprintf("%s/installation/%d", appLogin(app), id)
}

// blocks says until when GitHub asked for no requests with a login, used or not.
type blocks struct {
	mu sync.Mutex
	by map[string]time.Time
}

// until returns when a login is no longer blocked; zero: it is not.
func (b *blocks) until(login string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.by[login]
}

// block keeps the requests of a login back until at.
func (b *blocks) block(login string, at, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prune(now)
	b.extend(login, at)
}

// extend blocks a login until at, unless it is blocked for longer. b.mu is held.
func (b *blocks) extend(login string, at time.Time) {
	if at.After(b.by[login]) {
		b.by[login] = at
	}
}

// prune forgets blocks that have ended. b.mu is held.
func (b *blocks) prune(now time.Time) {
	maps.DeleteFunc(b.by, func(_ string, at time.Time) bool { return !at.After(now) })
}

// Share makes this process one of n replicas that keep GitHub's secondary limits
// together: from now on it takes 1/n of each, but at least 1. What it spent before stays
// spent. n < 1 counts as 1, which it is at first.
func (c *caller) Share(n int) { c.limits.replicas.Store(int64(max(n, 1))) }

// Blocked returns until when GitHub asked for no requests, by login, for the other
// replicas' Block: as GitHub told this process, or as Block did. A login has the form
// HOST/app/ID, HOST/app/ID/installation/ID or HOST/token/SUM, where SUM is the start of the
// token's SHA-256, so that it is the same on all replicas. All times are in the future.
// There are at most 256 for each GitHub: those that last the longest.
func (c *caller) Blocked() map[string]time.Time {
	c.blocks.mu.Lock()
	defer c.blocks.mu.Unlock()
	c.blocks.prune(c.now())
	blocked := maps.Clone(c.blocks.by)
	if over := len(blocked) - maxBlocks; over > 0 {
		soonest := slices.SortedFunc(maps.Keys(blocked), func(a, b string) int { return cmp.Or(blocked[a].Compare(blocked[b]), cmp.Compare(a, b)) })
		for _, login := range soonest[:over] {
			delete(blocked, login)
		}
	}
	return blocked
}

// Block keeps back the requests of logins as another replica's Blocked has them, also of
// those that this process has not used yet. It ignores logins of other GitHubs, unknown
// forms, past times, and new logins when 256 are blocked already. A time that is more than
// an hour ahead counts as an hour: GitHub's limits last no longer. No block is ever
// shortened.
func (c *caller) Block(blocked map[string]time.Time) {
	b, now := &c.blocks, c.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prune(now)
	for login, at := range blocked {
		form, ours := strings.CutPrefix(login, c.Host()+"/")
		if _, known := b.by[login]; !ours || !loginForm.MatchString(form) || !at.After(now) || !known && len(b.by) >= maxBlocks {
			continue
		}
		if last := now.Add(mostPause); at.After(last) {
			at = last
		}
		b.extend(login, at)
	}
}

// Share calls Client.Share for each GitHub.
func (g *Instances) Share(n int) {
	for _, in := range g.list {
		in.client.Share(n)
	}
}

// Blocked returns what Client.Blocked does for each GitHub.
func (g *Instances) Blocked() map[string]time.Time {
	blocked := map[string]time.Time{}
	for _, in := range g.list {
		maps.Copy(blocked, in.client.Blocked())
	}
	return blocked
}

// Block calls Client.Block for each GitHub.
func (g *Instances) Block(blocked map[string]time.Time) {
	for _, in := range g.list {
		in.client.Block(blocked)
	}
}
