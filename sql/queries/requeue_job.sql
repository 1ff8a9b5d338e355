-- requeue_job: send a finished job again.
SELECT 'pending again' AS said FROM email_requeue(%(job_id)s)
