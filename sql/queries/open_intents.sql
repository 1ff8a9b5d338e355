-- open_intents: journal what is about to be handed over; a row not returned was journaled before, by a worker that died.
INSERT INTO email_attempts (seq, attempt, provider, reason, worker)
SELECT
    intent.seq,
    intent.attempt,
    %(provider)s,
    intent.reason,
    %(worker)s
FROM unnest(%(seqs)s::bigint[], %(attempts)s::integer[], %(reasons)s::text[]) AS intent (seq, attempt, reason)
ON CONFLICT DO NOTHING
RETURNING seq
