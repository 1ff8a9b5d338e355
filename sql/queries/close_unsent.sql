-- close_unsent: journal attempts that end without a hand-over; a row not returned was journaled before.
INSERT INTO email_attempts (seq, attempt, state, provider, reason, worker, finished_at)
SELECT
    closing.seq,
    closing.attempt,
    closing.state,
    closing.provider,
    closing.reason,
    %(worker)s,
    clock_timestamp()
FROM
    unnest(
        %(seqs)s::bigint[], %(attempts)s::integer[], %(states)s::email_attempt_state[],
        %(providers)s::text[], %(reasons)s::text[]
    ) AS closing (seq, attempt, state, provider, reason)
ON CONFLICT DO NOTHING
RETURNING seq
