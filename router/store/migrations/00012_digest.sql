-- +goose Up

-- The same for the same signed bytes, whatever ID they came under; NULL: not recorded.
ALTER TABLE deliveries ADD COLUMN digest BLOB;
CREATE INDEX deliveries_digest ON deliveries (digest) WHERE digest IS NOT NULL;

-- What is not ours is forgotten sooner.
CREATE INDEX jobs_foreign ON jobs (updated_at) WHERE state IN ('ignored', 'denied');
