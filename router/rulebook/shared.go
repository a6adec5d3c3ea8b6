package rulebook

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"switchyard/router"
)

// Versions keeps the versions of the rules for all replicas; *store.Store implements it.
type Versions interface {
	// RulesVersions lists the versions, the newest first and without their files.
	RulesVersions(ctx context.Context) ([]router.KeptRules, error)
	RulesVersion(ctx context.Context, id int64) (router.KeptRules, error)

	// KeepRulesAfter keeps versions, one after the other, if the newest has the ID newest; else
	// the error is router.ErrRulesChanged.
	KeepRulesAfter(ctx context.Context, newest int64, versions ...router.KeptRules) error
}

// Reread has Run read the rules again at once: another replica has applied some.
func (b *Book) Reread() { b.told.Give() }

// take returns what counts, as counts does. Files that are new here count, and are kept as a
// version, even if editors made something of the same files before. The caller has the turn.
func (b *Book) take(ctx context.Context, own content, origin string) (content, error) {
	for b.shared != nil {
		c, kept, err := b.counts(ctx, own)
		if err != nil {
			return content{}, err
		}
		if own.text == b.own {
			return c, nil
		}
		if changed := b.own != "" && isOlder(kept, own.text, b.own); !changed && c.kept.ID != 0 {
			b.own = own.text
			return c, nil
		}
		within, cancel := context.WithTimeout(ctx, router.StoreTimeout)
		err = b.shared.KeepRulesAfter(within, c.last, keptOf(own, router.KeptRules{Origin: origin}))
		cancel()
		switch {
		case err == nil:
			b.own = own.text
			return own, nil
		case !errors.Is(err, router.ErrRulesChanged):
			return content{}, err
		}
	}
	return own, nil
}

// counts returns what counts, the files, which are own, or what editors made of them; and the
// versions by which it knows.
func (b *Book) counts(ctx context.Context, own content) (c content, kept []router.KeptRules, err error) {
	if b.shared == nil {
		return own, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	if kept, err = b.shared.RulesVersions(ctx); err != nil {
		return c, nil, err
	}
	if len(kept) > 0 {
		own.last = kept[0].ID
	}
	v := madeOf(kept, own.text)
	if v.ID == 0 || v.Hash == own.text {
		own.kept = v
		return own, kept, nil
	}
	if v, err = b.shared.RulesVersion(ctx, v.ID); err != nil {
		return c, nil, fmt.Errorf("read the rules that were applied: %w", err)
	}
	for i := range v.Files {
		v.Files[i].Name = filepath.Join(filepath.Dir(own.files[0].Name), v.Files[i].Name)
	}
	files, tests := split(v.Files)
	c = b.content(files, tests, own.specs)
	v.Files = nil
	c.kept, c.last = v, own.last
	return c, kept, nil
}

// madeOf returns the version that editors made of files with this hash, in one or more steps; it
// may have the same files. One without an ID: none, so the files count.
func madeOf(kept []router.KeptRules, hash string) router.KeptRules {
	at := newest(kept, hash)
	for at > 0 {
		top := at
		for top > 0 && kept[top-1].Applied() {
			top--
		}
		next := newest(kept, kept[top].Hash) // it may have been applied to again, after other replicas had other files
		if next == at {
			break
		}
		at = next
	}
	if at < 0 || kept[at].Hash == hash && !kept[at].Applied() {
		return router.KeptRules{}
	}
	return kept[at]
}

// isOlder reports whether files with this hash were last kept before those with another, or never.
func isOlder(kept []router.KeptRules, hash, other string) bool {
	at, otherAt := newest(kept, hash), newest(kept, other)
	return at < 0 || otherAt >= 0 && at > otherAt
}

// newest returns the index of the newest version with this hash; -1: there is none.
func newest(kept []router.KeptRules, hash string) int {
	return slices.IndexFunc(kept, func(v router.KeptRules) bool { return v.Hash == hash })
}
