-- A finished job and all that is known of it go in one step; its key, and one more in the books, stay.
-- published_only: keep what the relay has not told Kafka yet.
CREATE OR REPLACE FUNCTION email_purge(
    days integer, most integer DEFAULT 1000, published_only boolean DEFAULT false
) RETURNS integer
-- Workers plan without bitmaps, which these need: what is old is found by BRIN indexes.
LANGUAGE plpgsql SET enable_bitmapscan = on SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    gone integer;
    -- By an index on created_at nothing younger than this is looked at.
    shortest integer;
BEGIN
    IF $3 AND email_relay_is_elsewhere() THEN
        RAISE EXCEPTION 'which events Kafka has, nobody can tell: the relay''s place is of another cluster'
            USING ERRCODE = 'EM007', HINT = 'SELECT email_relay_rebase();';
    END IF;
    SELECT least(min(t.retention_days), nullif($1, 0)) INTO shortest FROM email_types AS t WHERE t.retention_days > 0;
    IF shortest IS NULL THEN
        RETURN 0;
    END IF;
    CREATE TEMPORARY TABLE IF NOT EXISTS email_going (id uuid, seq bigint) ON COMMIT DELETE ROWS;
    TRUNCATE email_going;
    WITH going AS (
        SELECT j.id, j.seq, j.job_id, j.type, j.status, j.campaign_id, j.created_at
        FROM email_jobs AS j
        LEFT JOIN email_types AS t ON t.type = j.type
        WHERE
            j.status IN ('sent', 'dead', 'cancelled', 'suppressed', 'expired')
            AND coalesce(t.retention_days, $1) > 0
            AND j.created_at < statement_timestamp() - make_interval(days => shortest)
            AND j.created_at < statement_timestamp() - make_interval(days => coalesce(t.retention_days, $1))
            AND j.updated_at < statement_timestamp() - make_interval(days => coalesce(t.retention_days, $1))
            AND NOT ($3 AND EXISTS (
                SELECT FROM email_tracking AS e CROSS JOIN email_relay AS r
                WHERE e.job_id = j.id AND (e.xid, e.seq) > (r.xid, r.seq)
            ))
        LIMIT $2
        FOR UPDATE OF j SKIP LOCKED
    ),
    keyed AS (
        INSERT INTO email_job_keys (key)
        SELECT sha256(convert_to(going.job_id, 'UTF8')) FROM going
        ON CONFLICT (key) DO UPDATE SET purged_at = excluded.purged_at
    ),
    counted AS (
        INSERT INTO email_purged AS p (day, campaign_id, type, status, jobs)
        SELECT (going.created_at AT TIME ZONE 'UTC')::date, going.campaign_id, going.type, going.status, count(*)
        FROM going
        GROUP BY 1, 2, 3, 4
        ON CONFLICT (day, type, status, coalesce(campaign_id, '00000000-0000-0000-0000-000000000000'))
        DO UPDATE SET jobs = p.jobs + excluded.jobs
    )
    INSERT INTO email_going SELECT going.id, going.seq FROM going;
    GET DIAGNOSTICS gone = ROW_COUNT;
    IF gone > 0 THEN
        DELETE FROM email_attempts AS a USING email_going AS g WHERE a.seq = g.seq;
        DELETE FROM email_tracking AS e USING email_going AS g WHERE e.job_id = g.id;
        DELETE FROM email_jobs AS j USING email_going AS g WHERE j.id = g.id;
    END IF;
    RETURN gone;
END $$;

COMMENT ON FUNCTION email_purge(integer, integer, boolean) IS
'Removes up to so many finished jobs older than some days, with their attempts and events; returns how many. Counts stay in email_purged, hashes of job_id in email_job_keys. Never jobs in doubt. Repeat it until it returns 0, or run email-worker purge.
SELECT email_purge(90);';

CREATE OR REPLACE FUNCTION email_purge_keys(days integer, most integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql SET enable_bitmapscan = on SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    gone integer;
BEGIN
    DELETE FROM email_job_keys WHERE key IN (
        SELECT key FROM email_job_keys
        WHERE purged_at < statement_timestamp() - make_interval(days => $1)
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

COMMENT ON FUNCTION email_purge_keys(integer, integer) IS
'Forgets the job_ids of jobs that were purged so many days ago: from then on the same job would be a new one.
SELECT email_purge_keys(30);';

CREATE OR REPLACE FUNCTION email_purge_rejects(days integer, most integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql SET enable_bitmapscan = on SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    gone integer;
BEGIN
    DELETE FROM email_rejects WHERE id IN (
        SELECT id FROM email_rejects
        WHERE received_at < statement_timestamp() - make_interval(days => $1)
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

COMMENT ON FUNCTION email_purge_rejects(integer, integer) IS
'Removes rejects that came so many days ago. SELECT email_purge_rejects(90) removes up to 1,000 of them.
SELECT email_purge_rejects(90);';
