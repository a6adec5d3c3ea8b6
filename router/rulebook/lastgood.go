package rulebook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/rules"
)

// goodMark is the name of the mark that has the last good rules in the database.
const goodMark = "last good rules"

// goodRules is rules that came into force, with everything needed to start with them again.
// Databases contain its JSON form.
type goodRules struct {
	At       time.Time
	Source   string // last element of --rules: the directories of a task on Nomad differ each time
	Files    []rules.File
	Jobspecs []jobspecs.Jobspec // the operator's own
}

// name returns the name under which a source's good rules are kept.
func (s source) name() string {
	if abs, err := filepath.Abs(s.rules); err == nil {
		return filepath.Base(abs)
	}
	return filepath.Base(s.rules)
}

// rememberGood records rules that came into force. If it cannot, the server works all the same.
func (b *Book) rememberGood(ctx context.Context, c content) {
	if b.marks == nil {
		return
	}
	text, err := json.Marshal(goodRules{time.Now(), b.name(), named(slices.Concat(c.files, c.tests)), c.specs.Own()})
	if err == nil {
		err = b.marks.SetMark(ctx, goodMark, string(text))
	}
	if err != nil {
		b.log.Error("cannot record the rules in force as the last good ones; a start with bad files would use older ones", "hash", c.hash, "err", err)
	}
}

// lastGood returns the last good rules of this source, or why there are none.
func (b *Book) lastGood(ctx context.Context) (content, *rules.Set, error) {
	var none content
	if b.marks == nil {
		return none, nil, errors.New("there is no database to take earlier rules from")
	}
	text, err := b.marks.Mark(ctx, goodMark)
	switch {
	case err != nil:
		return none, nil, err
	case text == "":
		return none, nil, errors.New("the database has no earlier good rules to start with")
	}
	var good goodRules
	if err = json.Unmarshal([]byte(text), &good); err == nil && len(good.Files) == 0 {
		err = errors.New("there are no files")
	}
	if err != nil {
		return none, nil, fmt.Errorf("read the last good rules in the database: %w", err)
	}
	if good.Source != b.name() {
		return none, nil, fmt.Errorf("the last good rules in the database are those of %s, not of %s, so they are not used", good.Source, b.name())
	}
	specs, err := jobspecs.With(good.Jobspecs)
	if err != nil {
		return none, nil, err
	}
	files, tests := split(good.Files)
	c := b.content(files, tests, specs)
	set, faults, err := c.load(ctx)
	if err == nil && len(faults) > 0 {
		err = faults
	}
	if err != nil {
		return none, nil, fmt.Errorf("the last good rules in the database, of %s, are not good for this version of Switchyard: %w", good.At.UTC().Format(time.RFC3339), err)
	}
	return c, set, nil
}

// A Started is what a server starts with.
type Started struct {
	Set      *rules.Set
	Version  router.RulesVersion
	Jobspecs *jobspecs.Set
}

// A FaultsError says that the rules have faults, and that there are no earlier ones to start with.
type FaultsError struct {
	Rules  string // as in Config
	Files  []rules.File
	Faults rules.Diagnostics
	Else   error // why no earlier rules are used
}

func (e *FaultsError) Error() string {
	return fmt.Sprintf("%s: %s; %v", e.Rules, router.Count(len(e.Faults), "fault"), e.Else)
}

// Start loads what the server starts with, and makes Nomad use its jobspecs: the files, or, if
// those are bad, the last good rules. If there are none either, the error may be a
// *FaultsError. Jobspecs that Nomad refuses do not keep the server from starting.
func (b *Book) Start(ctx context.Context) (Started, error) {
	var set *rules.Set
	refused := router.RefusedRules{Origin: start}
	c, err := b.read()
	if err == nil {
		if c, err = b.take(ctx, c, start); err != nil {
			return Started{}, err
		}
	}
	key, origin := c.hash, cmp.Or(c.kept.Origin, start)
	if err == nil {
		refused.Hash = c.hash
		b.record(ctx, c, router.KeptRules{Origin: start})
		set, refused.Diagnostics, err = b.judge(ctx, c)
	} else {
		key = err.Error()
		refused.Diagnostics, err = Faults(err)
	}
	bad := err != nil || len(refused.Diagnostics) > 0
	if bad {
		last, lastSet, none := b.lastGood(ctx)
		switch {
		case none == nil && last.hash != c.hash:
			b.refused = key
			b.tellRefused = func() { b.refuse(refused, err) }
			c, set, origin = last, lastSet, router.LastGood
		case err != nil:
			return Started{}, fmt.Errorf("%w; %w", err, none)
		case refused.Diagnostics[0].Code != router.JobspecRefused:
			return Started{}, &FaultsError{b.rules, slices.Concat(c.files, c.tests), refused.Diagnostics, none}
		default:
			for _, d := range refused.Diagnostics {
				b.log.Error("nomad did not accept a jobspec", logged(d)...)
			}
		}
	}
	v := c.version(origin)
	v.Who = c.kept.Who
	if last, _, err := b.lastGood(ctx); err == nil && !bad {
		v.Changes = c.changes(last)
	}
	b.current, b.inForce = c.hash, c
	b.nomad.Use(c.specs)
	if !bad {
		b.rememberGood(ctx, c)
	}
	return Started{set, v, c.specs}, nil
}
