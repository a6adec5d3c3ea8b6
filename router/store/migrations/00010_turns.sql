-- +goose Up

-- Jobs that are due are taken in turn by owner, then by repository.
CREATE INDEX jobs_turn ON jobs (host, owner, repo, due_at, id) WHERE state IN ('queued', 'retrying');
