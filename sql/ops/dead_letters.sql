-- What was given up, and why. Only reads.
--   psql … -f sql/ops/dead_letters.sql

-- By cause, the most first; numbers and addresses in the words are left out, so that the same cause is one line.
SELECT
    count(*) AS jobs,
    type,
    provider,
    regexp_replace(left(error_message, 200), '[^ <>]+@[^ <>]+|\d{4,}', '…', 'g') AS cause,
    min(updated_at) AS first,
    max(updated_at) AS last
FROM email_jobs
WHERE status = 'dead'
GROUP BY type, provider, cause
ORDER BY jobs DESC
LIMIT 30;

-- By hour, of the last day: when did it begin?
SELECT
    date_trunc('hour', updated_at) AS hour,
    type,
    count(*) AS jobs
FROM email_jobs
WHERE status = 'dead' AND updated_at > now() - interval '1 day'
GROUP BY hour, type
ORDER BY hour DESC, jobs DESC;

-- By recipient domain: one that refuses everything is a matter of reputation, not of addresses.
SELECT
    split_part(recipient_email, '@', 2) AS domain,
    count(*) AS jobs
FROM email_jobs
WHERE status = 'dead' AND updated_at > now() - interval '7 days'
GROUP BY domain
ORDER BY jobs DESC
LIMIT 20;
