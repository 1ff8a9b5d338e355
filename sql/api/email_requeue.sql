CREATE OR REPLACE FUNCTION email_requeue(job_id text) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    job email_jobs;
BEGIN
    SELECT * INTO job FROM email_jobs AS j WHERE j.job_id = $1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (SELECT FROM email_jobs AS j WHERE j.job_id = $1) THEN
        RAISE EXCEPTION 'job "%" is in a worker''s hands now', $1
            USING ERRCODE = 'EM003', HINT = 'It is being sent. Look again in a moment.';
    ELSIF NOT FOUND THEN
        RAISE EXCEPTION 'no job has the job_id "%"', $1
            USING ERRCODE = 'EM002', HINT = 'Give email_jobs.job_id, not id.';
    ELSIF job.recipient_email LIKE '%@erased.invalid' THEN
        RAISE EXCEPTION 'job "%" is of a person who was erased', $1
            USING ERRCODE = 'EM003', HINT = 'There is no address any more to send it to.';
    ELSIF job.status = 'pending' THEN
        RAISE EXCEPTION 'job "%" is pending already, due %', $1, job.next_attempt_at
            USING ERRCODE = 'EM003', HINT = 'To send it sooner, set scheduled_at to now().';
    END IF;
    UPDATE email_jobs AS j
    SET status = 'pending',
        retry_count = 0,
        error_message = NULL,
        scheduled_at = NULL,
        expires_at = CASE WHEN j.expires_at > clock_timestamp() THEN j.expires_at END
    WHERE j.id = job.id;
    INSERT INTO email_tracking (job_id, event_type, event_data)
    VALUES (job.id, 'requeued', jsonb_build_object('was', job.status, 'by', session_user));
    PERFORM email_wake(job.queue);
    RETURN job.id;
END $$;

COMMENT ON FUNCTION email_requeue(text) IS
'Sends a finished job again, whatever its end was, with all its retries; an expires_at that has passed is dropped. A mail that was sent goes out twice then.
SELECT email_requeue(''order-17-paid'');';

CREATE OR REPLACE FUNCTION email_requeue_dead(
    type text DEFAULT NULL, since timestamptz DEFAULT '-infinity'
) RETURNS bigint
LANGUAGE sql AS $$
    SELECT count(email_requeue(j.job_id))
    FROM (
        SELECT job_id FROM email_jobs
        WHERE status = 'dead' AND recipient_email NOT LIKE '%@erased.invalid' AND updated_at >= $2 AND ($1 IS NULL OR email_jobs.type = $1)
        FOR UPDATE SKIP LOCKED
    ) AS j
$$;

COMMENT ON FUNCTION email_requeue_dead(text, timestamptz) IS
'Sends dead letters again, all or those of one type, dead since a moment, and returns how many.
SELECT email_requeue_dead(''payment-failed'', now() - interval ''1 day'');';
