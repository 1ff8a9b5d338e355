-- hold_buckets: lock buckets, always in the same order, and read them and the clock; new ones are full.
INSERT INTO email_buckets AS held (bucket)
SELECT asked.bucket FROM unnest(%(buckets)s::text[]) AS asked (bucket) ORDER BY asked.bucket
ON CONFLICT (bucket) DO UPDATE SET used = held.used
RETURNING
    bucket,
    used,
    transactional_line,
    bulk_line,
    transactional_turns,
    bulk_turns,
    slowness,
    slowed_at,
    extract(EPOCH FROM clock_timestamp())::double precision AS now
