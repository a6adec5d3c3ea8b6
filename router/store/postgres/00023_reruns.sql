-- +goose Up

ALTER TABLE runners ADD COLUMN loss TEXT COLLATE "C" NOT NULL DEFAULT ''; -- router.Loss: what took it from its job

-- Jobs that failed as they lost their runner, and that their rules want run again.
CREATE TABLE reruns (
    job_id   BIGINT NOT NULL PRIMARY KEY, -- the one that failed
    run_id   BIGINT NOT NULL,
    name     TEXT   COLLATE "C" NOT NULL, -- of the job
    loss     TEXT   COLLATE "C" NOT NULL, -- router.Loss
    state    TEXT   COLLATE "C" NOT NULL, -- router.RerunState
    said     TEXT   COLLATE "C" NOT NULL, -- what people are told of that
    asked_at BIGINT NOT NULL, -- when GitHub was, or may have been, asked last to run it again; 0: never
    tries    BIGINT NOT NULL, -- looks at its run so far
    due_at   BIGINT           -- when the next one is due; NULL: nothing is left to do
);

CREATE INDEX reruns_due ON reruns (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX reruns_run ON reruns (run_id);
