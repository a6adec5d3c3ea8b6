package githubsim

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	apiURL = "https://api.github.com"
	webURL = "https://github.com"

	// The simulated GitHub has one webhook, that of one App.
	hookID = 420000001
	appID  = 420001
)

// An object is a JSON object as GitHub writes it: every key, many of them null.
type object = map[string]any

// Payload returns the body of a workflow_job delivery: action is queued,
// waiting, in_progress or completed. It has every key that GitHub's own has
// (https://docs.github.com/en/webhooks/webhook-events-and-payloads#workflow_job,
// read 2026-11-24). The job need not be known to a Server: empty fields get
// the defaults of Queue, and an empty Status the one that goes with action.
// The same job gives the same bytes. Safe for concurrent use.
func Payload(job Job, action string) []byte {
	job.JobSpec = job.withDefaults()
	job.Status = cmp.Or(job.Status, action)
	if job.Status == "completed" && job.Conclusion == "" {
		job.Conclusion = "success"
	}
	body := object{
		"action":       action,
		"workflow_job": jobObject(job),
		"repository":   repository(job.JobSpec),
		"sender":       user(job.Sender, "User"),
		"installation": object{"id": installation(job.Owner), "node_id": nodeID("Integration", installation(job.Owner))},
	}
	if !job.User {
		body["organization"] = organization(job.Owner)
	}
	if job.Waiting {
		body["deployment"] = deployment(job)
	}
	return mustJSON(body)
}

// Sign returns the values of the X-Hub-Signature-256 and X-Hub-Signature
// headers for body, as in
// https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries (read 2026-11-24).
func Sign(secret string, body []byte) (sha256Header, sha1Header string) {
	mac := func(name string, h func() hash.Hash) string {
		m := hmac.New(h, []byte(secret))
		m.Write(body)
		return name + "=" + hex.EncodeToString(m.Sum(nil))
	}
	return mac("sha256", sha256.New), mac("sha1", sha1.New)
}

// NewDelivery returns the request with which GitHub delivers body: signed,
// with all of GitHub's headers. guid goes into X-GitHub-Delivery.
func NewDelivery(ctx context.Context, url, secret, guid, event string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make a delivery to %s: %w", url, err)
	}
	h := req.Header
	h.Set("Accept", "*/*")
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "GitHub-Hookshot/"+guid[:min(7, len(guid))])
	h.Set("X-GitHub-Delivery", guid)
	h.Set("X-GitHub-Event", event)
	h.Set("X-GitHub-Hook-ID", strconv.Itoa(hookID))
	h.Set("X-GitHub-Hook-Installation-Target-ID", strconv.Itoa(appID))
	h.Set("X-GitHub-Hook-Installation-Target-Type", "integration")
	if secret != "" {
		sum256, sum1 := Sign(secret, body)
		h.Set("X-Hub-Signature-256", sum256)
		h.Set("X-Hub-Signature", sum1)
	}
	return req, nil
}

// jobObject returns what the webhook and the REST API alike say of a job.
func jobObject(j Job) object {
	repo := apiURL + "/repos/" + j.Owner + "/" + j.Repo
	return object{
		"id": j.ID, "run_id": j.RunID, "run_attempt": max(j.Attempt, 1), "run_url": fmt.Sprintf("%s/actions/runs/%d", repo, j.RunID),
		"node_id": nodeID("CheckRun", j.ID), "head_sha": SHA(j.RunID), "head_branch": j.Branch,
		"url":           fmt.Sprintf("%s/actions/jobs/%d", repo, j.ID),
		"html_url":      fmt.Sprintf("%s/%s/%s/actions/runs/%d/job/%d", webURL, j.Owner, j.Repo, j.RunID, j.ID),
		"check_run_url": fmt.Sprintf("%s/check-runs/%d", repo, j.ID), "name": j.Name, "workflow_name": j.Workflow, "status": j.Status,
		"conclusion": orNull(j.Conclusion), "created_at": stamp(j.CreatedAt), "started_at": stamp(startOf(j)),
		"completed_at": stampOrNull(j.CompletedAt), "labels": append([]string{}, j.Labels...), "steps": steps(j),
		"runner_id": orNull(j.RunnerID), "runner_name": orNull(j.RunnerName), "runner_group_id": orNull(j.RunnerGroupID),
		"runner_group_name": orNull(j.RunnerGroupName),
	}
}

// startOf returns when GitHub says the job started: until it did, when it was created.
func startOf(j Job) time.Time {
	if j.StartedAt.IsZero() {
		return j.CreatedAt
	}
	return j.StartedAt
}

// steps returns the steps of a job that a runner has.
func steps(j Job) []object {
	step := func(n int, name string) object {
		s := object{"number": n, "name": name, "status": j.Status, "conclusion": nil, "started_at": stamp(startOf(j)), "completed_at": nil}
		if j.Status == "completed" {
			s["conclusion"], s["completed_at"] = j.Conclusion, stamp(j.CompletedAt)
		}
		return s
	}
	switch {
	case j.RunnerName == "":
		return []object{}
	case j.Status == "in_progress":
		return []object{step(1, "Set up job")}
	case j.Status == "completed":
		return []object{step(1, "Set up job"), step(2, "Run "+j.Name), step(3, "Complete job")}
	}
	return []object{}
}

// repository returns the full repository object, of the webhook and of the REST API.
func repository(s JobSpec) object {
	full := s.Owner + "/" + s.Repo
	api, web := apiURL+"/repos/"+full, webURL+"/"+full
	visibility := "public"
	if s.Private {
		visibility = "private"
	}
	o := object{
		"id": number("repo", full), "node_id": nodeID("Repository", number("repo", full)), "name": s.Repo, "full_name": full,
		"private": s.Private, "visibility": visibility, "owner": user(s.Owner, ownerType(s)), "html_url": web, "description": nil,
		"fork": s.Fork, "url": api, "git_url": "git://github.com/" + full + ".git", "ssh_url": "git@github.com:" + full + ".git",
		"clone_url": web + ".git", "svn_url": web, "mirror_url": nil, "homepage": nil, "language": "Go", "license": nil,
		"created_at": "2024-01-15T09:00:00Z", "updated_at": "2026-01-15T09:00:00Z", "pushed_at": "2026-01-15T09:00:00Z", "size": 108,
		"has_issues": true, "has_projects": true, "has_downloads": true, "has_wiki": true, "has_pages": false, "has_discussions": false,
		"stargazers_count": 0, "watchers_count": 0, "forks_count": 0, "open_issues_count": 0, "forks": 0, "open_issues": 0, "watchers": 0,
		"archived": false, "disabled": false, "allow_forking": true, "is_template": false, "web_commit_signoff_required": false,
		"topics": []string{}, "default_branch": "main", "custom_properties": object{},
	}
	for key, path := range repositoryURLs {
		o[key] = api + path
	}
	return o
}

// repositoryURLs are the keys of a repository that hold its own API URL and this.
var repositoryURLs = map[string]string{
	"forks_url": "/forks", "keys_url": "/keys{/key_id}", "collaborators_url": "/collaborators{/collaborator}", "teams_url": "/teams",
	"hooks_url": "/hooks", "issue_events_url": "/issues/events{/number}", "events_url": "/events", "assignees_url": "/assignees{/user}",
	"branches_url": "/branches{/branch}", "tags_url": "/tags", "blobs_url": "/git/blobs{/sha}", "git_tags_url": "/git/tags{/sha}",
	"git_refs_url": "/git/refs{/sha}", "trees_url": "/git/trees{/sha}", "statuses_url": "/statuses/{sha}", "languages_url": "/languages",
	"stargazers_url": "/stargazers", "contributors_url": "/contributors", "subscribers_url": "/subscribers",
	"subscription_url": "/subscription", "commits_url": "/commits{/sha}", "git_commits_url": "/git/commits{/sha}",
	"comments_url": "/comments{/number}", "issue_comment_url": "/issues/comments{/number}", "contents_url": "/contents/{+path}",
	"compare_url": "/compare/{base}...{head}", "merges_url": "/merges", "archive_url": "/{archive_format}{/ref}",
	"downloads_url": "/downloads", "issues_url": "/issues{/number}", "pulls_url": "/pulls{/number}",
	"milestones_url": "/milestones{/number}", "notifications_url": "/notifications{?since,all,participating}",
	"labels_url": "/labels{/name}", "releases_url": "/releases{/id}", "deployments_url": "/deployments",
}

func ownerType(s JobSpec) string {
	if s.User {
		return "User"
	}
	return "Organization"
}

// user returns a user object; kind is User or Organization.
func user(login, kind string) object {
	id, api := number("user", login), apiURL+"/users/"+login
	return object{
		"login": login, "id": id, "node_id": nodeID(kind, id),
		"avatar_url": fmt.Sprintf("https://avatars.githubusercontent.com/u/%d?v=4", id), "gravatar_id": "", "url": api,
		"html_url": webURL + "/" + login, "followers_url": api + "/followers", "following_url": api + "/following{/other_user}",
		"gists_url": api + "/gists{/gist_id}", "starred_url": api + "/starred{/owner}{/repo}", "subscriptions_url": api + "/subscriptions",
		"organizations_url": api + "/orgs", "repos_url": api + "/repos", "events_url": api + "/events{/privacy}",
		"received_events_url": api + "/received_events", "type": kind, "site_admin": false,
	}
}

// organization returns the organization object of a webhook.
func organization(login string) object {
	id, api := number("user", login), apiURL+"/orgs/"+login
	return object{
		"login": login, "id": id, "node_id": nodeID("Organization", id), "url": api, "repos_url": api + "/repos",
		"events_url": api + "/events", "hooks_url": api + "/hooks", "issues_url": api + "/issues", "members_url": api + "/members{/member}",
		"public_members_url": api + "/public_members{/member}",
		"avatar_url":         fmt.Sprintf("https://avatars.githubusercontent.com/u/%d?v=4", id), "description": "",
	}
}

// deployment returns what a job's deployment to an environment adds to its payload.
func deployment(j Job) object {
	api := apiURL + "/repos/" + j.Owner + "/" + j.Repo
	url := fmt.Sprintf("%s/deployments/%d", api, j.ID)
	return object{
		"url": url, "id": j.ID, "node_id": nodeID("Deployment", j.ID), "sha": SHA(j.RunID), "ref": j.Branch, "task": "deploy",
		"payload": object{}, "original_environment": "production", "environment": "production", "transient_environment": false,
		"production_environment": false, "description": nil, "creator": user(j.Sender, "User"), "created_at": stamp(j.CreatedAt),
		"updated_at": stamp(j.CreatedAt), "statuses_url": url + "/statuses", "repository_url": api, "performed_via_github_app": nil,
	}
}

// number returns an ID that follows from a name, so that payloads need no registry.
func number(kind, name string) int64 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s:%s", kind, strings.ToLower(name))
	return int64(h.Sum32()%900_000_000) + 100_000_000
}

// installation returns the ID of the App's installation in an account.
func installation(owner string) int64 { return number("installation", owner) }

func nodeID(kind string, id int64) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "0%d:%s%d", len(kind), kind, id))
}

// SHA returns the commit that a run is for.
func SHA(runID int64) string {
	sum := sha1.Sum(strconv.AppendInt(nil, runID, 10))
	return hex.EncodeToString(sum[:])
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func stampOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// mustJSON encodes what is built in this package out of strings and numbers,
// which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
