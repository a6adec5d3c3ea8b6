-- +goose Up
CREATE TABLE sessions (
    cookie  BYTEA  PRIMARY KEY, -- SHA-256 of what it holds
    token   BYTEA  NOT NULL,    -- SHA-256; all zero: a person logged in
    issuer  TEXT   COLLATE "C" NOT NULL,
    subject TEXT   COLLATE "C" NOT NULL,
    email   TEXT   COLLATE "C" NOT NULL,
    name    TEXT   COLLATE "C" NOT NULL,
    groups  TEXT   COLLATE "C" NOT NULL, -- JSON
    begun   BIGINT NOT NULL,
    used    BIGINT NOT NULL
);

CREATE INDEX sessions_used ON sessions (used);
CREATE INDEX sessions_own ON sessions (token, issuer, subject, used);

CREATE TABLE finished_logins (
    state TEXT   COLLATE "C" PRIMARY KEY,
    at    BIGINT NOT NULL
);

CREATE TABLE login_key (
    one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    key BYTEA   NOT NULL
);
