-- claim_jobs: lock due jobs, best priority first, each priority from its own position on.
-- index: email_jobs_due
-- statement_timestamp(): stable, so the index scan ends at the first row of the future.
-- paused: types that are not sent now.
-- The outer query has no ORDER BY: it would lock rows that it then does not return.
SELECT
    job.seq,
    job.id::text,
    job.job_id,
    job.type,
    job.template,
    job.template_version,
    job.locale,
    job.recipient_email,
    job.recipient_name,
    job.subject,
    job.content,
    job.data::text,
    CASE WHEN pg_column_size(job.options) < 100000 THEN job.options::text END AS options,
    coalesce(pg_column_size(job.options) >= 100000, false) AS has_large_options,
    job.priority::text,
    job.guarantee::text,
    job.attempt_no,
    job.retry_count,
    job.max_retries,
    job.provider,
    job.next_attempt_at,
    coalesce(job.has_turn, false) AS has_turn,
    coalesce(job.expires_at <= statement_timestamp(), false) AS is_expired,
    (
        SELECT string_agg(list.scope || ' ' || list.reason, ',')
        FROM email_suppressions AS list
        WHERE
            list.address IN (
                email_normal_address(job.recipient_email),
                CASE
                    WHEN (SELECT catalog.has_erased FROM email_catalog AS catalog)
                        THEN email_erased_address(job.recipient_email)
                END
            )
            AND (list.expires_at IS NULL OR list.expires_at > statement_timestamp())
    ) AS suppressions,
    (SELECT catalog.version FROM email_catalog AS catalog) AS catalog_version
FROM
    unnest(
        %(priorities)s::email_priority[], %(after_at)s::timestamptz[], %(after_seq)s::bigint[]
    ) AS position (priority, after_at, after_seq)
CROSS JOIN
    LATERAL (
        SELECT *
        FROM email_jobs
        WHERE
            status = 'pending'
            AND queue = %(queue)s::email_queue
            AND priority = position.priority
            AND (next_attempt_at, seq) > (position.after_at, position.after_seq)
            AND next_attempt_at <= statement_timestamp()
            AND type <> all(%(paused)s::text[])
        ORDER BY next_attempt_at, seq
        LIMIT %(batch_size)s
        FOR UPDATE SKIP LOCKED
    ) AS job
LIMIT %(batch_size)s
