-- pause: stop sending something.
SELECT email_pause(%(kind)s, %(name)s, %(reason)s)
