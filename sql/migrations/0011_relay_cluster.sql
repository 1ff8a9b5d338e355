-- The relay's place counts transactions of one Postgres cluster, so it has to know which.

CREATE FUNCTION email_cluster() RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system());
EXCEPTION WHEN insufficient_privilege THEN
    RETURN NULL;
END $$;

COMMENT ON FUNCTION email_cluster() IS 'Which Postgres cluster this is; null where that may not be asked.
SELECT email_cluster();';

ALTER TABLE email_relay ADD COLUMN cluster bigint;

COMMENT ON COLUMN email_relay.cluster IS 'Whose transactions xid counts: email_cluster() when it was set.';

UPDATE email_relay SET cluster = email_cluster();

-- It gets another column.
DROP FUNCTION IF EXISTS email_erase(text);
