-- purge_keys: one batch of keys that need not be known any longer.
SELECT email_purge_keys(%(days)s::integer, %(most)s::integer)
