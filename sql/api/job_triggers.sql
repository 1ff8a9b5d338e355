-- What makes a bare INSERT INTO email_jobs a complete, correct enqueue.

-- What a claim reads is the text, and a number such as 1e131071 takes a few bytes in jsonb and 131,072 as text: some
-- thousands of them, and no claim that meets the job can be read any more.
CREATE OR REPLACE FUNCTION email_check_size(given jsonb, most_bytes integer, rule text) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF octet_length(given::text) > most_bytes THEN
        RAISE EXCEPTION '%: as text it has % bytes', rule, octet_length(given::text)
            USING ERRCODE = 'check_violation', CONSTRAINT = rule, TABLE = 'email_jobs';
    END IF;
END $$;

COMMENT ON FUNCTION email_check_size(jsonb, integer, text) IS 'Refuses a document whose text is too long. Called by triggers.
SELECT email_check_size(''{}'', 10, ''must be short'');';

CREATE OR REPLACE FUNCTION email_jobs_check_sizes() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM email_check_size(NEW.data, 4000000, 'data must be under 1 MB');
    PERFORM email_check_size(NEW.options, 30000000, 'options with attachments must be under 25 MB');
    RETURN NEW;
END $$;

COMMENT ON FUNCTION email_jobs_check_sizes() IS 'Trigger: refuses data and options whose text no claim could read.';

CREATE OR REPLACE TRIGGER email_jobs_check_sizes BEFORE INSERT OR UPDATE OF data, options ON email_jobs
FOR EACH ROW EXECUTE FUNCTION email_jobs_check_sizes();

-- A job's policy comes from its type, and it is due when it becomes due, never in the past:
-- claims resume behind the newest position, and a row placed in the past would be found late.
CREATE OR REPLACE FUNCTION email_jobs_complete() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    policy record;
BEGIN
    -- Purged, and here again: as with ON CONFLICT DO NOTHING, there is no second row of it.
    IF EXISTS (SELECT FROM email_job_keys WHERE key = sha256(convert_to(NEW.job_id, 'UTF8'))) THEN
        RETURN NULL;
    END IF;
    SELECT queue, priority, guarantee INTO policy FROM email_types WHERE type = NEW.type;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'unknown email type "%" in job "%"', NEW.type, NEW.job_id
            USING ERRCODE = 'EM001', HINT = 'SELECT type, description FROM email_types shows the known ones.';
    END IF;
    IF NEW.status <> 'pending' THEN
        RAISE EXCEPTION 'job "%" must start as pending, not as %', NEW.job_id, NEW.status
            USING ERRCODE = 'EM004', HINT = 'Leave status out of the INSERT.';
    END IF;
    NEW.queue := coalesce(NEW.queue, policy.queue);
    NEW.priority := coalesce(NEW.priority, policy.priority);
    NEW.guarantee := coalesce(NEW.guarantee, policy.guarantee);
    NEW.next_attempt_at := greatest(NEW.scheduled_at, clock_timestamp());
    -- The fence is the worker's: a producer's number could leave no room above it.
    NEW.attempt_no := 0;
    RETURN NEW;
END $$;

COMMENT ON FUNCTION email_jobs_complete() IS 'Trigger: fills queue, priority, guarantee and the due time of a new job.';

CREATE OR REPLACE TRIGGER email_jobs_complete BEFORE INSERT ON email_jobs
FOR EACH ROW EXECUTE FUNCTION email_jobs_complete();

CREATE OR REPLACE FUNCTION email_jobs_due_again() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.next_attempt_at := greatest(NEW.scheduled_at, clock_timestamp());
    NEW.updated_at := clock_timestamp();
    NEW.has_turn := NULL;
    RETURN NEW;
END $$;

COMMENT ON FUNCTION email_jobs_due_again() IS 'Trigger: a job that becomes pending, or is rescheduled, is due from now on or later.';

CREATE OR REPLACE TRIGGER email_jobs_due_again BEFORE UPDATE ON email_jobs
FOR EACH ROW WHEN (
    (new.status = 'pending' AND old.status <> 'pending') OR new.scheduled_at IS DISTINCT FROM old.scheduled_at
) EXECUTE FUNCTION email_jobs_due_again();

-- Tells the queue's idle listener, if there is one, that a job came. A hint only: the listener looks by itself too.
-- NOTIFY serialises all commits of a database, so it must be rare: only an idle listener holds the advisory lock
-- that this tries. At session level and given back at once, or producers would keep the listener from its lock.
CREATE OR REPLACE FUNCTION email_wake(queue email_queue) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    key integer := CASE queue WHEN 'transactional' THEN 1 ELSE 2 END;
BEGIN
    IF pg_try_advisory_lock_shared(1162690889, key) THEN
        PERFORM pg_advisory_unlock_shared(1162690889, key);
    ELSE
        PERFORM pg_notify('email_jobs_' || queue, '');
    END IF;
END $$;

COMMENT ON FUNCTION email_wake(email_queue) IS 'Wakes the idle worker of a queue, if there is one. Called by triggers.';

-- Purged while the insert waited for that: the look before it could not see the key yet. With the owner's rights, because
-- a producer may insert and nothing else.
CREATE OR REPLACE FUNCTION email_jobs_purged() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM email_jobs AS j
    USING new_jobs AS n
    WHERE
        j.id = n.id
        AND EXISTS (SELECT FROM email_job_keys AS k WHERE k.key = sha256(convert_to(n.job_id, 'UTF8')));
    RETURN NULL;
END $$;

COMMENT ON FUNCTION email_jobs_purged() IS 'Trigger: a job that was purged while it arrived again is no new one.';

CREATE OR REPLACE TRIGGER email_jobs_purged AFTER INSERT ON email_jobs
REFERENCING NEW TABLE AS new_jobs
FOR EACH STATEMENT EXECUTE FUNCTION email_jobs_purged();

CREATE OR REPLACE FUNCTION email_jobs_wake() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM email_wake(came.queue) FROM (SELECT DISTINCT queue FROM new_jobs) AS came;
    RETURN NULL;
END $$;

COMMENT ON FUNCTION email_jobs_wake() IS 'Trigger: wakes the idle worker of each queue that new jobs came to.';

CREATE OR REPLACE TRIGGER email_jobs_wake AFTER INSERT ON email_jobs
REFERENCING NEW TABLE AS new_jobs
FOR EACH STATEMENT EXECUTE FUNCTION email_jobs_wake();
