-- purge_jobs: one batch of jobs that are old enough.
SELECT email_purge(%(days)s::integer, %(most)s::integer, %(published_only)s::boolean)
