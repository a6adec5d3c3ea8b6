package rules

import (
	"slices"

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// claims reports rules whose jobspec fetches no claim though they do not say that
// their runners bring their own registration, and the other way round.
func (l *linter) claims() {
	for i := range l.rules {
		ru := &l.rules[i]
		check := func(name string, at cond.Spot, own *layer) {
			k := slices.IndexFunc(l.jobspecs, func(j Jobspec) bool { return j.Name == name })
			if k < 0 {
				return
			}
			said := own.get(runnerRegistration)
			ours := said != nil
			if !ours {
				said = l.defaults.get(runnerRegistration)
			}
			means := said.isLiteral() && said.literal == "own"
			switch {
			case l.jobspecs[k].NoClaim && !ours && !means:
				l.add("no-claim", at, ru.name,
					"the jobspec %s does not fetch the claim, so its runner brings its own registration: it registers before anybody knows whether its job still waits, it may have any name, so only its Nomad job is followed, and it keeps running when its job is cancelled; fetch the claim as the built-in jobspecs do, or write runner: { registration: own } if this is intended",
					words.Quote(name))
			case !l.jobspecs[k].NoClaim && means:
				l.add("claim-unused", at, ru.name,
					"registration is own, and the jobspec %s fetches the claim: leave registration out, or name a jobspec whose runner brings its own registration", words.Quote(name))
			}
		}
		check(ru.jobspec, ru.jobspecAt, &ru.layer)
		for j := range ru.fallback {
			f := &ru.fallback[j]
			if f.jobspec != "" {
				own := ru.layer.without(&f.layer)
				if s := f.layer.get(runnerRegistration); s != nil {
					own.settings = []setting{*s}
				}
				check(f.jobspec, f.jobspecAt, &own)
			}
		}
	}
}
