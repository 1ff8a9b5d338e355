-- moment_ago: what the clock said so many seconds ago.
SELECT clock_timestamp() - make_interval(secs => %(seconds)s)
