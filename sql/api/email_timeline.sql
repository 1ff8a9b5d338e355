CREATE OR REPLACE FUNCTION email_timeline(job_id text)
RETURNS TABLE (at timestamptz, what text, attempt integer, provider text, detail text)
LANGUAGE sql STABLE AS $$
    WITH job AS (SELECT * FROM email_jobs AS j WHERE j.job_id = $1)
    SELECT job.created_at, 'enqueued', NULL::integer, NULL::text,
        format('%s, %s priority, due %s', job.type, job.priority,
               to_char(greatest(job.scheduled_at, job.created_at), 'YYYY-MM-DD HH24:MI:SSTZH:TZM'))
    FROM job
    UNION ALL
    SELECT a.started_at, 'handed over', a.attempt, a.provider, concat_ws(
            '; ',
            concat_ws(' by ', a.reason, a.worker),
            CASE WHEN a.state = 'sending' AND a.attempt <= job.attempt_no THEN 'no answer came: its worker died' END
        )
    FROM job INNER JOIN email_attempts AS a ON a.seq = job.seq
    -- Without a provider it was refused before any saw it.
    WHERE a.state <> 'not_sent' AND a.provider IS NOT NULL
    UNION ALL
    SELECT a.finished_at, a.state::text, a.attempt, a.provider, coalesce(a.answer, a.reason)
    FROM job INNER JOIN email_attempts AS a ON a.seq = job.seq
    WHERE a.finished_at IS NOT NULL AND (a.state, a.reason) IS DISTINCT FROM ('not_sent', 'cancelled')
    UNION ALL
    SELECT t.occurred_at, t.event_type::text, NULL, t.provider, coalesce(
            t.event_data ->> 'reason', 'by ' || (t.event_data ->> 'by'), t.event_data::text
        )
    FROM job INNER JOIN email_tracking AS t ON t.job_id = job.id
    ORDER BY 1, 3 NULLS LAST
$$;

COMMENT ON FUNCTION email_timeline(text) IS
'The life of one mail: when it came, each attempt with provider and answer, each event.
SELECT * FROM email_timeline(''order-17-paid'');';
