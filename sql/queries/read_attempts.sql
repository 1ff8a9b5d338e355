-- read_attempts: what the journal knows of attempts that no settle has counted yet, oldest first.
SELECT
    attempt.seq,
    attempt.attempt,
    attempt.state::text,
    attempt.provider,
    attempt.answer,
    attempt.message_id,
    extract(EPOCH FROM clock_timestamp() - attempt.started_at)::float AS age_seconds
FROM unnest(%(seqs)s::bigint[], %(settled)s::integer[]) AS job (seq, settled)
INNER JOIN email_attempts AS attempt ON job.seq = attempt.seq AND job.settled < attempt.attempt
ORDER BY attempt.seq, attempt.attempt
