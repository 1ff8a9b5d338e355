-- become_listener: the queue's one idle listener in the whole cluster is whoever holds this lock.
SELECT pg_try_advisory_lock(1162690889, %(key)s)
