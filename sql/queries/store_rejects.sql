-- store_rejects: keep what cannot become a job; the same bytes from the same place once.
INSERT INTO email_rejects (source, position, raw, error)
SELECT
    %(source)s,
    reject.position,
    reject.raw,
    reject.error
FROM unnest(%(positions)s::text[], %(raws)s::bytea[], %(errors)s::text[]) AS reject (position, raw, error)
ON CONFLICT (source, position, sha256(raw)) DO NOTHING
