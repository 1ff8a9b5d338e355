-- resume: end a pause.
SELECT email_resume(%(kind)s, %(name)s)
