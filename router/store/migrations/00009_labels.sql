-- +goose Up

-- Which jobs ask for a label: its first 64 characters, in lower case as far as
-- SQLite knows it. Triggers write it.
CREATE TABLE job_labels (
    label  TEXT    NOT NULL,
    job_id INTEGER NOT NULL,
    PRIMARY KEY (label, job_id)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO job_labels (label, job_id) SELECT lower(substr(value, 1, 64)), jobs.id FROM jobs, json_each(labels);

-- +goose StatementBegin
CREATE TRIGGER jobs_labelled AFTER INSERT ON jobs BEGIN
    INSERT OR IGNORE INTO job_labels (label, job_id) SELECT lower(substr(value, 1, 64)), NEW.id FROM json_each(NEW.labels);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER jobs_unlabelled AFTER DELETE ON jobs BEGIN
    DELETE FROM job_labels WHERE job_id = OLD.id AND label IN (SELECT lower(substr(value, 1, 64)) FROM json_each(OLD.labels));
END;
-- +goose StatementEnd

CREATE INDEX jobs_host ON jobs (host); -- what operators look for, as the others
