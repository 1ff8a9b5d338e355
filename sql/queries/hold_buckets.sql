-- hold_buckets: lock buckets, always in the same order, and read them and the clock.
SELECT
    bucket,
    used,
    transactional_line,
    bulk_line,
    transactional_turns,
    bulk_turns,
    slowness,
    slowed_at,
    extract(EPOCH FROM clock_timestamp())::double precision AS now
FROM email_buckets
WHERE bucket = any(%(buckets)s::text[])
ORDER BY bucket
FOR UPDATE
