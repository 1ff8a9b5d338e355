-- read_bucket_keeper: who keeps the token buckets, in which epoch, and since how many seconds (less than 0: not yet).
SELECT
    keeper,
    epoch,
    extract(EPOCH FROM clock_timestamp() - begins_at)::double precision AS age
FROM email_bucket_keeper
