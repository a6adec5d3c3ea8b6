package router

import "context"

// A Notice is what a commit shows about a job. Its strings are of limited length and
// harmless: Title is one line of plain text, Text is Markdown.
type Notice struct {
	Kind  NoticeKind
	Repo  Repo
	SHA   string
	JobID int64
	Name  string // "switchyard / " and the job's name
	URL   string // GitHub's page for the job, or ""
	State NoticeState
	Title string
	Text  string
}

// A NoticeKind says what a notice is on GitHub: `kind` in the rules' feedback.
type NoticeKind string

// The kinds of notices.
const (
	NoticeCheckRun     NoticeKind = "check_run" // only an App can create one
	NoticeCommitStatus NoticeKind = "commit_status"
)

// A NoticeState says how a notice is shown.
type NoticeState string

// The states of notices.
const (
	NoticeWaits   NoticeState = "waits"
	NoticeRefused NoticeState = "refused" // no runner will serve the job
	NoticeOver    NoticeState = "over"    // the job runs or has ended: nothing more to say
)

// Notices is the part of GitHub that shows people what happens to their jobs. Errors
// are classified as for Nomad.Start. Safe for concurrent use.
type Notices interface {
	// Notice puts a notice on its commit and returns its GitHub ID. It replaces the
	// notice with the given ID; 0 creates a new one. The ID of a commit status is always
	// 0: GitHub shows the newest status of each name.
	Notice(ctx context.Context, n Notice, id int64) (int64, error)

	// FindNotice returns the ID of the check run that an earlier Notice of a
	// job may have made; 0 when there is none.
	FindNotice(ctx context.Context, n Notice) (int64, error)

	// CancelRun cancels a workflow run; no error when it has ended.
	CancelRun(ctx context.Context, repo Repo, runID int64) error
}

// A DueNotice is a job whose commit has no notice yet, or an outdated one.
type DueNotice struct {
	Job   Job
	Kind  NoticeKind
	Begun bool  // there is a notice, or may be
	ID    int64 // of that notice; 0: there is none, or its ID is not known

	Rerun RerunState // of a job that failed; "": it is not run again
	Said  string     // about that
}
