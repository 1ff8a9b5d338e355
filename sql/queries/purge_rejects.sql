-- purge_rejects: one batch of rejects that are old enough.
SELECT email_purge_rejects(%(days)s::integer, %(most)s::integer)
