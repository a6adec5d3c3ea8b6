-- +goose Up
CREATE INDEX jobs_ended ON jobs (completed_at) WHERE completed_at <> 0;
