-- +goose Up

-- Why a job is in its state, in one word: router.Cause. Whatever writes a reason writes it too.
ALTER TABLE jobs ADD COLUMN cause TEXT NOT NULL DEFAULT '';

-- Likewise of a runner: no_job, claim_refused (why is in cause_text), disconnected (its node is), or empty.
ALTER TABLE runners ADD COLUMN cause      TEXT    NOT NULL DEFAULT '';
ALTER TABLE runners ADD COLUMN cause_text TEXT    NOT NULL DEFAULT ''; -- the reason as it was when the cause was written
ALTER TABLE runners ADD COLUMN ended_job  INTEGER NOT NULL DEFAULT 0;  -- the job that it had when it became finished; 0: none that GitHub named it for

-- Earlier versions told causes by how their sentences begin.
UPDATE runners SET cause = 'claim_refused', cause_text = substr(reason, 1, instr(reason || '; then ', '; then ') - 1)
WHERE reason LIKE 'its claim was refused%';
UPDATE runners SET cause = 'no_job', cause_text = substr(reason, 1, instr(reason || ';', ';') - 1)
WHERE state = 'lost' AND reason LIKE 'GitHub gave its runner no job%';
UPDATE runners SET cause = 'disconnected' WHERE reason LIKE 'its node is disconnected from Nomad%';
UPDATE runners SET ended_job = CAST(substr(reason, length('its job ') + 1) AS INTEGER)
WHERE state = 'finished' AND reason LIKE 'its job %';

UPDATE jobs SET cause = CASE state
    WHEN 'held' THEN iif(limit_key = '', 'approval', 'limit')
    WHEN 'queued' THEN 'queued'
    WHEN 'retrying' THEN CASE
        WHEN reason LIKE 'Nomad could not take the job yet%' THEN 'nomad'
        WHEN reason LIKE 'Nomad refuses the job%' THEN 'nomad_refused'
        WHEN reason LIKE 'GitHub takes no runner for it now%' THEN 'github_limit'
        WHEN reason LIKE 'no runner is started for it now%' OR reason LIKE 'GitHub did not say what started the run yet%'
            OR reason LIKE 'ask GitHub %' OR reason LIKE 'Nomad has its runner%' THEN 'github'
        WHEN reason LIKE 'GitHub gave its runner no job%' THEN 'no_job'
        ELSE 'runner' END
    WHEN 'dispatched' THEN coalesce((SELECT iif(r.state <> 'dispatched' OR r.placed_at <> 0, 'starting', iif(r.unplaced IS NULL, 'placing',
        iif(r.unplaced ->> '$.never', 'no_node_fits', 'no_node_free'))) FROM runners r WHERE r.job_id = jobs.id AND r.try = jobs.try), 'starting')
    WHEN 'running' THEN CASE
        WHEN reason LIKE 'runs on %' THEN 'running'
        WHEN reason LIKE 'while it had the job, its runner ended %' THEN 'runner_ended'
        ELSE '' END
    WHEN 'unroutable' THEN iif(reason LIKE 'Nomad refuses the job%', 'nomad_refused', '')
    WHEN 'completed' THEN iif(reason LIKE '%while it had the job, its runner ended %', 'runner_ended', '')
    ELSE '' END
WHERE state NOT IN ('ignored', 'denied');
