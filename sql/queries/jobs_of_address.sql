-- jobs_of_address: the producers' names of one person's jobs.
SELECT job_id FROM email_jobs WHERE email_normal_address(recipient_email) = email_normal_address(%(address)s)
