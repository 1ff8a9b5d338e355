-- drop_old_buckets: buckets that have been full for a while say nothing; a day's ceilings are gone with the day.
DELETE FROM email_buckets
WHERE
    bucket IN (
        SELECT old.bucket
        FROM email_buckets AS old
        WHERE
            CASE
                WHEN old.bucket LIKE 'ceiling %%'
                    THEN right(old.bucket, 10) < to_char(current_timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD')
                ELSE
                    greatest(old.used, old.transactional_line, old.bulk_line, old.slowed_at)
                    < extract(EPOCH FROM clock_timestamp()) - 600
            END
        LIMIT 10000
        FOR UPDATE SKIP LOCKED
    )
