-- put_buckets: write buckets back.
UPDATE email_buckets AS held
SET
    used = new.used,
    transactional_line = new.transactional_line,
    bulk_line = new.bulk_line,
    transactional_turns = new.transactional_turns,
    bulk_turns = new.bulk_turns,
    slowness = new.slowness,
    slowed_at = new.slowed_at
FROM
    unnest(
        %(buckets)s::text[], %(used)s::float[], %(transactional_lines)s::float[], %(bulk_lines)s::float[],
        %(transactional_turns)s::float[], %(bulk_turns)s::float[],
        %(slownesses)s::float[], %(slowed_ats)s::float[]
    ) AS new (bucket, used, transactional_line, bulk_line, transactional_turns, bulk_turns, slowness, slowed_at)
WHERE held.bucket = new.bucket
