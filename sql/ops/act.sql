-- What can be done with jobs, one statement each: copy the one you need. Run as it is, this file changes nothing.
--   psql … -f sql/ops/act.sql

BEGIN;

-- The life of one mail.
SELECT
    at,
    what,
    attempt,
    provider,
    detail
FROM email_timeline('order-17-paid');

-- Take a pending job back. Never waits; says in flight, or in doubt, when it is too late.
SELECT email_cancel(job_id) FROM email_jobs WHERE job_id = 'order-17-paid';

-- Send a finished job again, with all its retries. A mail that was sent goes out twice then.
SELECT email_requeue(job_id) FROM email_jobs WHERE job_id = 'order-17-paid' AND status <> 'pending';

-- Send the dead letters of a type again, those of the last day.
SELECT email_requeue_dead('payment-failed', now() - interval '1 day');

-- Stop a type, a queue or a provider within a second, and let it go on.
SELECT email_pause('type', 'newsletter', 'wrong link in it');
SELECT email_resume('type', 'newsletter');

-- Cancel what still waits of a campaign.
SELECT email_cancel(job_id)
FROM email_jobs
WHERE campaign_id = '00000000-0000-0000-0000-000000000000' AND status = 'pending';

-- Send sooner what waits for a retry or a turn.
UPDATE email_jobs SET scheduled_at = now()
WHERE job_id = 'order-17-paid' AND status = 'pending';

ROLLBACK;
