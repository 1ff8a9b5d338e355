-- A role that may look and not touch, for dashboards: email_reader. It sees how many mails of which kind went where and
-- when; it does not see who got them, nor what they said.
--
--     psql -1 -v ON_ERROR_STOP=1 -f sql/ops/readonly_role.sql     -- as a superuser; safe to repeat
--     psql -c "ALTER ROLE email_reader LOGIN PASSWORD '…'"        -- once; Grafana then connects as email_reader
--
-- Without a superuser: as an owner of the tables who may create roles (CREATEROLE) and made this one.
-- It is not a part of `email-worker migrate`, because a worker's role seldom may do that. Repeat it after an upgrade.
-- All databases of a server share a role: what it may read is granted in the database in which this runs, and schema.
-- Dashboards read whole ranges of email_jobs and email_tracking; on a busy system let Grafana ask a replica.

DO $$
BEGIN
    -- Without LOGIN; what an ALTER ROLE has given since stays as it is.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'email_reader') THEN
        CREATE ROLE email_reader NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    -- Somebody else runs this at the same moment.
    NULL;
END $$;

COMMENT ON ROLE email_reader IS 'Reads what the dashboards of the email worker show: no addresses, no names, no contents.';

-- An open query keeps dead rows alive, and a queue is mostly dead rows: no question may take long.
ALTER ROLE email_reader SET statement_timeout = '20s';
ALTER ROLE email_reader SET idle_in_transaction_session_timeout = '20s';
ALTER ROLE email_reader SET default_transaction_read_only = on;

DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO email_reader', current_schema());
END $$;

-- Begin with nothing: a column that was granted by an older version of this file is taken back.
REVOKE ALL ON email_jobs, email_tracking, email_attempts FROM email_reader;

-- Not: recipient_email, recipient_name, recipient_user_id, subject, content, data, options, extra; not job_id, for a
-- producer may have made it of an address; not error_message, in which servers quote addresses (see the view below).
GRANT SELECT (
    id, type, queue, status, campaign_id, provider, scheduled_at, created_at, sent_at, processed_at, updated_at
) ON email_jobs TO email_reader;

-- Not: event_data, message_id, ip_address, user_agent.
GRANT SELECT (job_id, event_type, provider, occurred_at) ON email_tracking TO email_reader;

-- Not: answer, reason, message_id.
GRANT SELECT (seq, attempt, provider, state, started_at, finished_at) ON email_attempts TO email_reader;

-- A migration that changes the type of one of these columns has to drop the view first.
DROP VIEW IF EXISTS email_dead_causes;

CREATE VIEW email_dead_causes AS
SELECT
    type,
    provider,
    updated_at AS dead_at,
    -- What stands in angle brackets, what looks like an address in plain or in some code, and long numbers and names
    -- with digits, which are of this one mail (queue ids): so that the same cause is one line, and nobody is named.
    left(
        regexp_replace(
            regexp_replace(
                regexp_replace(coalesce(error_message, 'no reason'), '<[^<>]*>', '<…>', 'g'),
                '\S*(@|=40|%40|&#64;|\(at\))\S*', '…', 'gi'
            ),
            '\m\w*\d\w{8,}\M', '…', 'g'
        ),
        120
    ) AS cause
FROM email_jobs
WHERE status = 'dead';

COMMENT ON VIEW email_dead_causes IS
'Dead letters with their reason, addresses and numbers left out: for email_reader.
SELECT type, cause, count(*) FROM email_dead_causes WHERE dead_at > now() - interval ''1 day'' GROUP BY 1, 2 ORDER BY 3 DESC;';

-- The view belongs to whom the tables belong, not to the superuser who runs this: so that a migration can drop it.
DO $$
BEGIN
    EXECUTE format(
        'ALTER VIEW email_dead_causes OWNER TO %I',
        (SELECT tableowner FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'email_jobs')
    );
END $$;

GRANT SELECT ON email_dead_causes TO email_reader;
