-- waiting_deliver: whether a deliver task of the queue waits to be picked up, so that no second one is deferred.
SELECT count(*) > 0
FROM procrastinate_jobs
WHERE status = 'todo' AND queueing_lock = %(lock)s
