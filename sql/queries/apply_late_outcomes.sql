-- apply_late_outcomes: a doubt whose answer reached the journal after all is settled as sent.
WITH evidence AS (
    SELECT
        job.id,
        attempt.provider,
        attempt.message_id
    FROM email_jobs AS job
    INNER JOIN email_attempts AS attempt ON job.seq = attempt.seq
    WHERE
        job.status = 'in_doubt'
        AND attempt.state = 'accepted'
        -- What was accepted before somebody asked for one more is no evidence of that one.
        AND attempt.started_at > coalesce(
            (SELECT max(occurred_at) FROM email_tracking WHERE job_id = job.id AND event_type = 'requeued'),
            '-infinity'
        )
    LIMIT 1000
    FOR UPDATE OF job SKIP LOCKED
),

settled AS (
    UPDATE email_jobs AS job
    SET
        status = 'sent',
        provider = evidence.provider,
        message_id = evidence.message_id,
        error_message = NULL,
        sent_at = clock_timestamp(),
        updated_at = clock_timestamp()
    FROM evidence
    WHERE job.id = evidence.id AND job.status = 'in_doubt'
    RETURNING job.id, job.provider, job.message_id
)

INSERT INTO email_tracking (job_id, event_type, provider, message_id, event_data)
SELECT
    id,
    'sent',
    provider,
    message_id,
    '{"reason": "the provider''s answer arrived late"}'
FROM settled
