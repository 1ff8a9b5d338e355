-- some_time_ago: so many seconds before this transaction began.
SELECT now() - make_interval(secs => %(seconds)s)
