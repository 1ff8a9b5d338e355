CREATE OR REPLACE FUNCTION email_pause(kind text, name text, reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF $1 NOT IN ('type', 'queue', 'provider') THEN
        RAISE EXCEPTION 'a % cannot be paused', $1
            USING ERRCODE = 'EM006', HINT = 'Pause a type, a queue or a provider.';
    ELSIF $1 = 'type' AND NOT EXISTS (SELECT FROM email_types AS t WHERE t.type = $2) THEN
        RAISE EXCEPTION 'no type is called "%"', $2
            USING ERRCODE = 'EM006', HINT = 'SELECT type FROM email_types;';
    ELSIF $1 = 'queue' AND $2 NOT IN ('transactional', 'bulk') THEN
        RAISE EXCEPTION 'no queue is called "%"', $2
            USING ERRCODE = 'EM006', HINT = 'The queues are transactional and bulk.';
    ELSIF $1 = 'provider' AND $2 NOT IN ('smtp', 'smtp_fallback', 'ses', 'sendgrid') THEN
        RAISE EXCEPTION 'no provider is called "%"', $2
            USING ERRCODE = 'EM006', HINT = 'They are called smtp, smtp_fallback, ses and sendgrid.';
    END IF;
    INSERT INTO email_pauses AS p (kind, name, reason) VALUES ($1, $2, $3)
    ON CONFLICT ON CONSTRAINT email_pauses_pkey DO NOTHING;
    RETURN CASE WHEN FOUND THEN 'paused' ELSE 'was paused already' END;
END $$;

COMMENT ON FUNCTION email_pause(text, text, text) IS
'Stops sending mail of a type, of a queue or by a provider, within a second; what is in hand is finished. Jobs stay pending, and use up no retry. With a provider paused its mail goes to the next one, if there is one.
SELECT email_pause(''type'', ''newsletter'', ''wrong link in it'');';

CREATE OR REPLACE FUNCTION email_resume(kind text, name text) RETURNS text
LANGUAGE sql AS $$
    WITH resumed AS (DELETE FROM email_pauses AS p WHERE p.kind = $1 AND p.name = $2 RETURNING 1)
    SELECT CASE WHEN EXISTS (SELECT FROM resumed) THEN 'resumed' ELSE 'was not paused' END
$$;

COMMENT ON FUNCTION email_resume(text, text) IS
'Ends a pause. What is paused is in email_pauses.
SELECT email_resume(''type'', ''newsletter'');';
