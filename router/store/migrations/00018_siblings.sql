-- +goose Up

-- Jobs that GitHub keeps from their runners, by run: it may hand out the next when another ends.
CREATE INDEX jobs_no_job ON jobs (run_id) WHERE cause = 'no_job';
