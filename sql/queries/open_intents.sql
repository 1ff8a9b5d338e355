-- open_intents: journal what is about to be handed over; a row not returned was journaled before, by a worker that died.
INSERT INTO email_attempts (seq, attempt, provider, reason, worker)
SELECT
    intent.seq,
    intent.attempt,
    %(provider)s,
    %(reason)s,
    %(worker)s
FROM unnest(%(seqs)s::bigint[], %(attempts)s::integer[]) AS intent (seq, attempt)
ON CONFLICT DO NOTHING
RETURNING seq
