-- lock_migrations: one migrate at a time; the others wait here and find the work done.
SELECT pg_advisory_lock(1162690889, 0)
