-- write_outcomes: what the providers answered. Losing one to a crash only adds a doubt, so the commit need not wait.
UPDATE email_attempts AS attempt
SET
    state = outcome.state,
    answer = outcome.answer,
    message_id = outcome.message_id,
    finished_at = clock_timestamp()
FROM
    unnest(
        %(seqs)s::bigint[], %(attempts)s::integer[], %(states)s::email_attempt_state[],
        %(answers)s::text[], %(message_ids)s::text[]
    ) AS outcome (seq, attempt, state, answer, message_id),
    set_config('synchronous_commit', coalesce(%(synchronous_commit)s, current_setting('synchronous_commit')), true)
WHERE attempt.seq = outcome.seq AND attempt.attempt = outcome.attempt
