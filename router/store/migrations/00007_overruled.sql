-- +goose Up

-- What is said of a job that was denied, unroutable or ignored here, and that one of our runners served; empty: it was not.
ALTER TABLE jobs ADD COLUMN overruled TEXT NOT NULL DEFAULT '';
