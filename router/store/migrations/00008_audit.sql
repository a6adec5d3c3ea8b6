-- +goose Up

-- How it is known who did something, and from where it came; '' for what was recorded before.
ALTER TABLE audit ADD COLUMN login   TEXT NOT NULL DEFAULT ''; -- token, loopback, or issuer and subject
ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT '';
