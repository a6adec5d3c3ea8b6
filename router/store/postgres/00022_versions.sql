-- +goose Up

-- By which rule a runner was started, which rules and jobspecs were in force then, its version
-- as GitHub says, and the exit code of its task.
ALTER TABLE runners ADD COLUMN rule TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE runners ADD COLUMN rules TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE runners ADD COLUMN version TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE runners ADD COLUMN exit_code BIGINT NOT NULL DEFAULT 0;

-- Those whose version GitHub gives no jobs.
CREATE INDEX runners_outdated ON runners (rule, rules) WHERE cause = 'runner_version';
