"""Redis's road into the queue: `python -m redis_ingest` stores a list's messages, and a stream's, as jobs.

What is taken from the list stands in a list of the taker's own until its jobs are committed, so nothing is lost when
the taker dies; a repetition is harmless, because job_id makes one row of it.
"""
