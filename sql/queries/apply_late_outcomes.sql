-- apply_late_outcomes: a doubt about which the journal knows everything by now is one no more.
-- Taken: sent. Refused: dead. Definitely not taken: pending again.
WITH evidence AS (
    SELECT
        job.id,
        known.*
    FROM email_jobs AS job
    CROSS JOIN
        LATERAL (
            SELECT
                max(attempt.provider) FILTER (WHERE attempt.state = 'accepted') AS provider,
                max(attempt.message_id) FILTER (WHERE attempt.state = 'accepted') AS message_id,
                count(*) FILTER (WHERE attempt.state IN ('sending', 'unknown')) AS open_questions,
                CASE
                    WHEN bool_or(attempt.state = 'accepted') THEN 'sent'::email_status
                    WHEN bool_or(attempt.state = 'refused') THEN 'dead'
                    ELSE 'pending'
                END AS status
            FROM email_attempts AS attempt
            WHERE
                attempt.seq = job.seq
                -- What was accepted before somebody asked for one more is no evidence of that one.
                AND attempt.started_at > coalesce(
                    (SELECT max(occurred_at) FROM email_tracking WHERE job_id = job.id AND event_type = 'requeued'),
                    '-infinity'
                )
            HAVING count(*) > 0
        ) AS known
    WHERE job.status = 'in_doubt' AND (known.status = 'sent' OR known.open_questions = 0)
    LIMIT 1000
    FOR UPDATE OF job SKIP LOCKED
),

settled AS (
    UPDATE email_jobs AS job
    SET
        status = evidence.status,
        provider = coalesce(evidence.provider, job.provider),
        message_id = evidence.message_id,
        error_message = CASE WHEN evidence.status = 'dead' THEN job.error_message END,
        sent_at = CASE WHEN evidence.status = 'sent' THEN clock_timestamp() END,
        updated_at = clock_timestamp()
    FROM evidence
    WHERE job.id = evidence.id AND job.status = 'in_doubt'
    RETURNING job.id, job.status, job.provider, job.message_id
)

INSERT INTO email_tracking (job_id, event_type, provider, message_id, event_data)
SELECT
    id,
    CASE status WHEN 'sent' THEN 'sent'::email_event WHEN 'dead' THEN 'dead' ELSE 'requeued' END,
    provider,
    message_id,
    '{"reason": "the provider''s answer arrived late"}'
FROM settled
