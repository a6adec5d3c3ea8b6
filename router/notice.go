package router

import "context"

// A Notice is what people see of a job on its commit. Its strings are bounded
// and inert: Title is one line of plain text, Text is Markdown.
type Notice struct {
	Kind  NoticeKind
	Repo  Repo
	SHA   string
	JobID int64
	Name  string // switchyard / and the job's name
	URL   string // GitHub's page for the job, or ""
	State NoticeState
	Title string
	Text  string
}

// A NoticeKind is what a notice on a commit is: `kind` in the rules' feedback.
type NoticeKind string

// The kinds of notices.
const (
	NoticeCheckRun     NoticeKind = "check_run" // by an App only
	NoticeCommitStatus NoticeKind = "commit_status"
)

// A NoticeState says how a notice is shown.
type NoticeState string

// The states of notices.
const (
	NoticeWaits   NoticeState = "waits"
	NoticeRefused NoticeState = "refused" // no runner will serve the job
	NoticeOver    NoticeState = "over"    // it runs or ended; there is nothing more to say
)

// Notices is the part of GitHub that shows people what becomes of their jobs.
// Errors are sorted as for Nomad.Start. Safe for concurrent use.
type Notices interface {
	// Notice puts a notice on its commit, in the place of the one with this
	// GitHub ID, or, when that is 0, as a new one, and returns its ID: 0 for a
	// commit status, of which GitHub shows the newest of a name.
	Notice(ctx context.Context, n Notice, id int64) (int64, error)

	// FindNotice returns the ID of the check run that an earlier Notice of a
	// job may have made; 0 when there is none.
	FindNotice(ctx context.Context, n Notice) (int64, error)

	// CancelRun cancels a workflow run; no error when it has ended.
	CancelRun(ctx context.Context, repo Repo, runID int64) error
}

// A DueNotice is a job whose commit has no notice yet, or one that is out of date.
type DueNotice struct {
	Job   Job
	Kind  NoticeKind
	Begun bool  // something was said, or may have been
	ID    int64 // of what was said; 0: none, or it is not known
}
