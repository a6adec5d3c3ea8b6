-- +goose Up
-- What usage is counted from: a job is written here once, when it ends.
CREATE INDEX jobs_ended ON jobs (completed_at, received_at, running_at, substr(runner_name, 1, 4), fit, owner, repo, host, workflow, decision ->> '$.rule')
WHERE completed_at <> 0;
