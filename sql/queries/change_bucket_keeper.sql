-- change_bucket_keeper: a new epoch, which begins when every worker knows of it; nothing, if somebody was faster.
UPDATE email_bucket_keeper
SET
    keeper = %(keeper)s,
    epoch = epoch + 1,
    begins_at = clock_timestamp() + make_interval(secs => %(begins_in)s)
WHERE epoch = %(epoch)s
RETURNING epoch
