CREATE OR REPLACE FUNCTION email_cancel(job_id text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    job email_jobs;
    last_attempt integer;
    open_question boolean;
BEGIN
    -- Never waits: the lock is held across a send.
    SELECT * INTO job FROM email_jobs AS j WHERE j.job_id = $1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (SELECT FROM email_jobs AS j WHERE j.job_id = $1) THEN
        RETURN 'in flight';
    ELSIF NOT FOUND THEN
        RAISE EXCEPTION 'no job has the job_id "%"', $1
            USING ERRCODE = 'EM002', HINT = 'Give email_jobs.job_id, not id.';
    ELSIF job.status <> 'pending' THEN
        RETURN job.status;
    END IF;
    -- What a dead worker left in the journal decides before anybody's wish does.
    SELECT coalesce(max(a.attempt), job.attempt_no), coalesce(bool_or(a.state IN ('sending', 'accepted', 'unknown')), false)
    INTO last_attempt, open_question
    FROM email_attempts AS a WHERE a.seq = job.seq AND a.attempt > job.attempt_no;
    IF open_question THEN
        RETURN 'in doubt';
    END IF;
    INSERT INTO email_attempts (seq, attempt, state, reason, worker, finished_at)
    VALUES (job.seq, last_attempt + 1, 'not_sent', 'cancelled', session_user, clock_timestamp())
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'in doubt';
    END IF;
    UPDATE email_jobs AS j
    SET status = 'cancelled', attempt_no = last_attempt + 1, updated_at = clock_timestamp()
    WHERE j.id = job.id;
    INSERT INTO email_tracking (job_id, event_type, event_data)
    VALUES (job.id, 'cancelled', jsonb_build_object('by', session_user));
    RETURN 'cancelled';
END $$;

COMMENT ON FUNCTION email_cancel(text) IS
'Takes a pending job back. Returns cancelled; or in flight (a worker has it now), in doubt (a worker died with it, and it may have gone), or the status that it ended with already. Never waits.
SELECT email_cancel(''reminder-99'');';
