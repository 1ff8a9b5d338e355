-- unsuppress: an address may be written to again; returns how many entries are gone.
SELECT email_unsuppress(%(address)s, %(scope)s)
