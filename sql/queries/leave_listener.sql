-- leave_listener: stop being the queue's idle listener.
SELECT pg_advisory_unlock(1162690889, %(key)s)
