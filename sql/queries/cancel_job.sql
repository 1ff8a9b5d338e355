-- cancel_job: take a pending job back.
SELECT email_cancel(%(job_id)s)
