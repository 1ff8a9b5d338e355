-- settle_jobs: write the end of a batch: each job's new state and, in the same statement, its event.
WITH settled AS (
    UPDATE email_jobs AS job
    SET
        status = s.status,
        attempt_no = s.attempt_no,
        retry_count = job.retry_count + s.retries,
        next_attempt_at = coalesce(
            clock_timestamp() + make_interval(secs => s.delay_seconds), job.next_attempt_at
        ),
        provider = coalesce(s.provider, job.provider),
        message_id = coalesce(s.message_id, job.message_id),
        error_message = s.error,
        has_turn = s.has_turn,
        processed_at = CASE WHEN s.event IS NULL THEN job.processed_at ELSE clock_timestamp() END,
        sent_at = CASE WHEN s.status = 'sent' THEN clock_timestamp() ELSE job.sent_at END,
        updated_at = clock_timestamp()
    FROM
        unnest(
            %(ids)s::uuid[], %(statuses)s::email_status[], %(events)s::email_event[], %(attempt_nos)s::integer[],
            %(retries)s::integer[], %(delays)s::float[], %(providers)s::text[], %(message_ids)s::text[],
            %(errors)s::text[], %(turns)s::boolean[]
        ) AS s (id, status, event, attempt_no, retries, delay_seconds, provider, message_id, error, has_turn)
    WHERE job.id = s.id AND job.status = 'pending'
    RETURNING job.id, s.event, s.attempt_no, s.provider, s.message_id, s.error
)

INSERT INTO email_tracking (job_id, event_type, provider, message_id, event_data)
SELECT
    id,
    event,
    provider,
    message_id,
    CASE WHEN error IS NOT NULL THEN jsonb_build_object('reason', error, 'attempt', attempt_no) END
FROM settled
WHERE event IS NOT NULL
