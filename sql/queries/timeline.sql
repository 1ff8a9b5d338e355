-- timeline: the life of one mail.
SELECT
    at,
    what,
    attempt,
    provider,
    detail
FROM email_timeline(%(job_id)s)
