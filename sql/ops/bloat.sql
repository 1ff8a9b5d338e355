-- How big the tables are, and how much of them is dead. Only reads.
--   psql … -f sql/ops/bloat.sql

SELECT
    relname AS "table",
    pg_size_pretty(pg_total_relation_size(relid)) AS size,
    n_live_tup AS live_rows,
    n_dead_tup AS dead_rows,
    round(100.0 * n_dead_tup / greatest(n_live_tup + n_dead_tup, 1), 1) AS dead_percent,
    greatest(last_vacuum, last_autovacuum) AS vacuumed,
    greatest(last_analyze, last_autoanalyze) AS analyzed
FROM pg_stat_user_tables
WHERE relname LIKE 'email%' OR relname LIKE 'procrastinate%'
ORDER BY pg_total_relation_size(relid) DESC;

-- The indexes: the one of the claim (email_jobs_due) holds pending jobs alone, and should be small.
SELECT
    indexrelname AS "index",
    pg_size_pretty(pg_relation_size(indexrelid)) AS size,
    idx_scan AS scans,
    idx_tup_read AS entries_read
FROM pg_stat_user_indexes
WHERE relname LIKE 'email%'
ORDER BY pg_relation_size(indexrelid) DESC
LIMIT 20;

-- If email_jobs_due has grown during an outage, build it anew; nothing waits meanwhile:
--   REINDEX INDEX CONCURRENTLY email_jobs_due;
