-- What the database knows of one person, made nobody's.

-- As jsonb its escapes are resolved: j\u00f6rg is jörg. A text in it may be JSON again.
CREATE OR REPLACE FUNCTION email_readable(given text, depth integer DEFAULT 3) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    document jsonb;
BEGIN
    BEGIN
        document := given::jsonb;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        RETURN given;
    END;
    RETURN concat_ws(E'\n', given, document::text, (
        SELECT string_agg(email_readable(part #>> '{}', depth - 1), E'\n')
        FROM jsonb_path_query(document, '$.** ? (@.type() == "string" && @ like_regex "^\\s*[\\[{]")') AS part
        WHERE depth > 1
    ));
END $$;

COMMENT ON FUNCTION email_readable(text, integer) IS 'A reject''s text, and what its JSON says, to search in.
SELECT email_readable(convert_from(raw, ''UTF8'')) FROM email_rejects;';

CREATE OR REPLACE FUNCTION email_text_of(raw bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN email_readable(convert_from(raw, 'UTF8'));
EXCEPTION WHEN character_not_in_repertoire THEN
    RETURN encode(raw, 'escape');
END $$;

COMMENT ON FUNCTION email_text_of(bytea) IS 'A reject''s bytes as a text to search in.
SELECT email_text_of(raw) FROM email_rejects;';

CREATE OR REPLACE FUNCTION email_erase(address text) RETURNS TABLE (what text, how_many bigint, is_left boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    given CONSTANT text := btrim($1);
    -- As a whole word, however it is written.
    mentioned CONSTANT text := '((?<![A-Za-z0-9._%+-])|(?<=\\[bfnrt]))' || regexp_replace(given, '([^A-Za-z0-9@_ -])', '\\\1', 'g')
        || '(?![A-Za-z0-9-]|\.[A-Za-z0-9])';
    normal CONSTANT text := email_normal_address(given);
    nobody CONSTANT text := email_erased_address(given);
    held bigint;
BEGIN
    IF given IS NULL OR given !~ '^[^[:space:]@<>]{1,64}@[^[:space:]@<>]+$' THEN
        RAISE EXCEPTION '"%" is not an address', left(given, 100)
            USING ERRCODE = 'EM006', HINT = 'Give one whole address, like ann@example.com.';
    END IF;
    CREATE TEMPORARY TABLE IF NOT EXISTS email_erasing (id uuid, seq bigint, is_theirs boolean) ON COMMIT DELETE ROWS;
    TRUNCATE email_erasing;
    INSERT INTO email_erasing
    SELECT j.id, j.seq, email_normal_address(j.recipient_email) = normal
    FROM email_jobs AS j
    WHERE
        email_normal_address(j.recipient_email) = normal
        OR j.options::text ~* mentioned OR j.data::text ~* mentioned OR j.extra::text ~* mentioned
        OR j.content ~* mentioned OR j.subject ~* mentioned OR j.error_message ~* mentioned
    FOR UPDATE SKIP LOCKED;

    is_left := false;
    what := 'pending jobs cancelled';
    SELECT count(*) FILTER (WHERE email_cancel(j.job_id) = 'cancelled') INTO how_many
    FROM email_jobs AS j JOIN email_erasing AS e ON e.id = j.id
    WHERE e.is_theirs AND j.status = 'pending';
    RETURN NEXT;

    what := 'jobs without address, name, data and content now';
    UPDATE email_jobs AS j
    SET recipient_email = nobody, recipient_name = NULL, recipient_user_id = NULL, subject = NULL, content = NULL,
        data = NULL, options = NULL, extra = NULL,
        error_message = regexp_replace(j.error_message, mentioned, 'erased', 'gi')
    FROM email_erasing AS e
    WHERE e.id = j.id AND e.is_theirs AND j.status <> 'pending';
    GET DIAGNOSTICS how_many = ROW_COUNT;
    RETURN NEXT;

    what := 'jobs of others that mentioned the address, without those parts now';
    UPDATE email_jobs AS j
    SET
        subject = CASE WHEN j.subject ~* mentioned THEN NULL ELSE j.subject END,
        content = CASE WHEN j.content ~* mentioned THEN NULL ELSE j.content END,
        data = CASE WHEN j.data::text ~* mentioned THEN NULL ELSE j.data END,
        options = CASE WHEN j.options::text ~* mentioned THEN NULL ELSE j.options END,
        extra = CASE WHEN j.extra::text ~* mentioned THEN NULL ELSE j.extra END,
        error_message = regexp_replace(j.error_message, mentioned, 'erased', 'gi')
    FROM email_erasing AS e
    WHERE e.id = j.id AND NOT e.is_theirs AND j.status <> 'pending';
    GET DIAGNOSTICS how_many = ROW_COUNT;
    RETURN NEXT;

    what := 'attempts';
    UPDATE email_attempts AS a
    SET answer = regexp_replace(a.answer, mentioned, 'erased', 'gi'),
        reason = regexp_replace(a.reason, mentioned, 'erased', 'gi')
    FROM email_erasing AS e
    WHERE e.seq = a.seq AND (a.answer ~* mentioned OR a.reason ~* mentioned);
    GET DIAGNOSTICS how_many = ROW_COUNT;
    RETURN NEXT;

    what := 'events';
    UPDATE email_tracking AS t
    SET event_data = regexp_replace(t.event_data::text, mentioned, 'erased', 'gi')::jsonb,
        ip_address = CASE WHEN e.is_theirs THEN NULL ELSE t.ip_address END,
        user_agent = CASE WHEN e.is_theirs THEN NULL ELSE t.user_agent END
    FROM email_erasing AS e
    WHERE e.id = t.job_id
        AND (t.event_data::text ~* mentioned
            OR (e.is_theirs AND (t.ip_address IS NOT NULL OR t.user_agent IS NOT NULL)));
    GET DIAGNOSTICS how_many = ROW_COUNT;
    RETURN NEXT;

    what := 'rejects without their message now';
    UPDATE email_rejects AS r
    SET raw = convert_to('erased ' || r.id, 'UTF8'), error = regexp_replace(r.error, mentioned, 'erased', 'gi')
    WHERE email_text_of(r.raw) ~* mentioned OR position(convert_to(given, 'UTF8') IN r.raw) > 0;
    GET DIAGNOSTICS how_many = ROW_COUNT;
    RETURN NEXT;

    what := 'suppressions, kept under a hash';
    INSERT INTO email_suppressions AS s (address, scope, reason, created_at, expires_at)
    SELECT nobody, s.scope, s.reason, s.created_at, s.expires_at FROM email_suppressions AS s WHERE s.address = normal
    ON CONFLICT (address, scope, reason) DO UPDATE
    -- The one that lasts longer stays; null is for good.
    SET expires_at = CASE WHEN s.expires_at > excluded.expires_at THEN s.expires_at ELSE excluded.expires_at END
    WHERE s.expires_at IS NOT NULL;
    DELETE FROM email_suppressions AS s WHERE s.address = normal;
    GET DIAGNOSTICS how_many = ROW_COUNT;
    IF how_many > 0 THEN
        UPDATE email_catalog SET has_erased = true WHERE NOT has_erased;
    END IF;
    RETURN NEXT;

    is_left := true;
    what := 'jobs in a worker''s hands, or pending and mentioning the address; run it again';
    SELECT count(*) INTO how_many
    FROM email_jobs AS j
    WHERE email_normal_address(j.recipient_email) = normal
        OR j.options::text ~* mentioned OR j.data::text ~* mentioned OR j.extra::text ~* mentioned
        OR j.content ~* mentioned OR j.subject ~* mentioned OR j.error_message ~* mentioned;
    RETURN NEXT;

    -- Nothing that a repetition could mend.
    is_left := false;
    what := 'job_ids made of the address, NOT erased: other systems know the jobs by them';
    SELECT count(*) INTO how_many FROM email_jobs AS j WHERE j.job_id ~* mentioned;
    RETURN NEXT;
END $$;

COMMENT ON FUNCTION email_erase(text) IS
'Removes a person by address: from jobs (pending ones are cancelled), attempts, events and rejects. Counts stay, and suppressions under a keyed hash, so that nobody writes to them again. is_left: what is to be erased by running it again. It reads whole tables. Redis and Kafka it cannot reach: email-worker erase does Redis; Kafka''s email-events hold no addresses, but email-jobs and email-dlq keep messages until their retention ends. A job_id stays as it is: do not make it of an address.
SELECT * FROM email_erase(''ann@example.com'');';
