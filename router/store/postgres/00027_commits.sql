-- +goose Up
-- The last transaction of each writer. Whether one was committed is asked here: after a crash
-- PostgreSQL gives another the number of one of which it has written nothing.
CREATE TABLE commits (
    writer TEXT COLLATE "C" PRIMARY KEY, -- of a process
    xact   TEXT COLLATE "C" NOT NULL,    -- the transaction's number
    at     TIMESTAMPTZ NOT NULL          -- when it began
);
