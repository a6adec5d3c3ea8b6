-- +goose Up
CREATE TABLE leader (
    epoch BIGINT NOT NULL, -- the number of the term
    name  TEXT   COLLATE "C" NOT NULL,
    since BIGINT NOT NULL
);
INSERT INTO leader (epoch, name, since) VALUES (0, '', 0);

-- Volatile, so that it sees what was committed before it is called, and not only before the
-- statement that calls it.
CREATE FUNCTION leader_epoch() RETURNS BIGINT LANGUAGE sql VOLATILE AS 'SELECT epoch FROM leader';

CREATE TABLE replicas (
    backend TEXT COLLATE "C" PRIMARY KEY, -- of its watch: process and start. The row counts for as long as that is connected
    said    TEXT NOT NULL
);
