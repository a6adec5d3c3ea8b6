-- +goose Up

ALTER TABLE runners ADD COLUMN own INTEGER NOT NULL DEFAULT 0; -- 1: it brings its own registration, and never claims

-- What Nomad said of how it ended; empty: it has not, or Nomad did not say.
ALTER TABLE runners ADD COLUMN end_words TEXT NOT NULL DEFAULT '';

UPDATE runners SET own = 1 WHERE state = 'dispatched' AND nomad_job LIKE '%/dispatch-' || id || '-%';
