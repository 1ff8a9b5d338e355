-- next_events: events after a place, in the order of commits of each job; none whose transaction might still be open.
-- index: email_tracking_pkey
SELECT
    event.xid::text,
    event.seq,
    event.id::text,
    event.event_type::text,
    job.job_id,
    job.type,
    event.occurred_at,
    event.provider,
    event.message_id,
    CASE WHEN event.event_data ->> 'attempt' ~ '^\d{1,9}$' THEN (event.event_data ->> 'attempt')::integer END AS attempt,
    substring(event.event_data ->> 'reason' FROM '(?:^|\D)([245]\d\d(?:[ -][245]\.\d{1,3}\.\d{1,3})?)(?:\D|$)') AS code
FROM email_tracking AS event
INNER JOIN email_jobs AS job ON event.job_id = job.id
WHERE
    (event.xid, event.seq) > (%(xid)s::xid8, %(seq)s)
    AND event.xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY event.xid, event.seq
LIMIT %(most)s
