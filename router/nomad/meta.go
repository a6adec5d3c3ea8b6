package nomad

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"switchyard/router"
)

// The job meta that a jobspec can use, as ${NOMAD_META_…}.
const (
	MetaClaimURL     = "SWITCHYARD_CLAIM_URL"
	MetaClaimToken   = "SWITCHYARD_CLAIM_TOKEN"
	metaRegistration = "SWITCHYARD_REGISTRATION" // jit or token: what the claim's answer is
	metaWarm         = "SWITCHYARD_WARM"         // "true": the runner waits at the claim for a job; else ""
	metaVerifyURL    = "SWITCHYARD_VERIFY_URL"   // where a runner asks whether it may serve its job; set only if its rule says so
	metaVerifyToken  = "SWITCHYARD_VERIFY_TOKEN" // likewise
	metaKeep         = "SWITCHYARD_KEEP"         // seconds for which the runner stays if its job fails; likewise
	metaRule         = "SWITCHYARD_RULE"
	metaRunnerName   = "RUNNER_NAME"
	metaRunnerURL    = "RUNNER_URL"    // of the repository, organization or enterprise that it registers with
	metaLabels       = "RUNNER_LABELS" // comma separated
	metaRepoURL      = "GH_REPO_URL"
	metaRepository   = "GH_REPOSITORY"
	metaOwner        = "GH_OWNER"
	metaJobID        = "GH_JOB_ID"
	metaRunID        = "GH_RUN_ID"
	metaRunAttempt   = "GH_RUN_ATTEMPT"
	metaWorkflow     = "GH_WORKFLOW"
)

// The bounds of strangers' strings. Nomad would accept megabytes, but they end up in a
// task's environment: Linux allows 128 KiB for a variable, Windows 32,767 characters.
const (
	maxValue  = 256                   // characters of a name or a label
	maxLabels = router.MaxTokenLabels // bytes of all labels together; those after are left out
	maxURL    = 2048                  // bytes
)

func jobMeta(r router.StartRequest) map[string]string {
	meta := map[string]string{
		metaWarm:         "",
		MetaClaimURL:     r.ClaimURL,
		MetaClaimToken:   string(r.ClaimToken),
		metaRegistration: cmp.Or(r.Placement.Runner.Registration, "jit"),
		metaRule:         inert(r.Rule),
		metaRunnerName:   inert(r.Runner.Name),
		metaRunnerURL:    inert(runnerURL(r)),
		metaLabels:       labels(r.Job.RunnerLabels()),
		metaRepoURL:      inert(page(r.Job, r.Job.Repo.FullName)),
		metaRepository:   inert(r.Job.Repo.FullName),
		metaOwner:        inert(r.Job.Repo.Owner),
		metaJobID:        strconv.FormatInt(router.GitHubID(r.Job.ID), 10),
		metaRunID:        strconv.FormatInt(router.GitHubID(r.Job.RunID), 10),
		metaRunAttempt:   strconv.Itoa(r.Job.Attempt),
		metaWorkflow:     inert(r.Job.Workflow),
	}
	if r.Warm { // whose job it will be is not known
		for _, key := range []string{metaRunnerURL, metaLabels, metaRepoURL} {
			meta[key] = ""
		}
		meta[metaWarm] = "true"
	}
	if r.VerifyURL != "" {
		meta[metaVerifyURL], meta[metaVerifyToken] = r.VerifyURL, string(r.VerifyToken)
	}
	if keep := r.Placement.Debug.KeepFor(); keep > 0 {
		meta[metaKeep] = strconv.Itoa(int(keep.Seconds()))
	}
	return meta
}

// metaKeys returns the keys of jobMeta, sorted.
func metaKeys() []string { return slices.Sorted(maps.Keys(jobMeta(router.StartRequest{}))) }

// inert makes a stranger's string one bounded, printable line that Nomad leaves as it is.
// Nomad's client interpolates the values of meta, once, with node attributes and the
// task's variables, including its Nomad and Vault tokens (client/taskenv/env.go, buildEnv,
// v2.0.6-dev, read and tried 2026-11-24). There is no escape, so "${" is broken up. A line
// break would let a string end an assignment in a template with env = true.
func inert(s string) string {
	return strings.ReplaceAll(Printable(s, maxValue), "${", "$ {")
}

// labels joins the labels that fit, unchanged except that a comma in a label, which would
// split it, becomes a space.
func labels(list []string) string {
	var b strings.Builder
	for i, label := range list {
		label = inert(strings.ReplaceAll(label, ",", " "))
		if b.Len()+len(label)+1 > maxLabels {
			break
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(label)
	}
	return b.String()
}

// jobPage returns GitHub's page for the job, if GitHub gave a plain web address.
func jobPage(j router.Job) (*url.URL, bool) {
	u, err := url.Parse(j.URL)
	ok := err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && len(j.URL) <= maxURL
	return u, ok
}

// runnerURL returns GitHub's page for what the runner registers with.
func runnerURL(r router.StartRequest) string {
	switch t := router.TargetOf(r.Job.Repo, r.Placement.Runner); {
	case t.Enterprise != "":
		return page(r.Job, "enterprises/"+t.Enterprise)
	case t.Repo == "":
		return page(r.Job, t.Owner)
	default:
		return page(r.Job, t.Owner+"/"+t.Repo)
	}
}

// page returns the URL of a page on the job's GitHub.
func page(j router.Job, path string) string {
	u := url.URL{Scheme: "https", Host: cmp.Or(j.Repo.Host, "github.com"), Path: "/" + path}
	if page, ok := jobPage(j); ok {
		u.Scheme, u.Host = page.Scheme, page.Host
	}
	return u.String()
}

// jobName returns what people see in lists, such as "acme/web · build".
func jobName(r router.StartRequest) string {
	if r.Job.Repo.FullName == "" || r.Job.Name == "" {
		return r.Runner.ID
	}
	return Printable(inert(r.Job.Repo.FullName)+" · "+inert(r.Job.Name), maxName)
}
