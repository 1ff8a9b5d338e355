-- The relay's place counts transactions of one Postgres cluster. After a dump and a restore they begin anew, and the place
-- of before says nothing: events of now may lie before it.

CREATE OR REPLACE FUNCTION email_relay_is_elsewhere() RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT exists(
        SELECT FROM email_relay AS r
        WHERE r.cluster <> email_cluster() OR r.xid >= pg_snapshot_xmax(pg_current_snapshot())
    )
$$;

COMMENT ON FUNCTION email_relay_is_elsewhere() IS
'Whether the place of the relay is of another Postgres cluster, which this database was restored from. Nothing is published then.
SELECT email_relay_is_elsewhere();';

CREATE OR REPLACE FUNCTION email_relay_rebase() RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = on AS $$
DECLARE
    place email_relay;
    here CONSTANT xid8 := pg_current_xact_id();
    unpublished bigint;
BEGIN
    IF NOT email_relay_is_elsewhere() THEN
        RAISE EXCEPTION 'the relay''s place is of this cluster: there is nothing to mend'
            USING ERRCODE = 'EM007', HINT = 'To publish all events again: UPDATE email_relay SET xid = ''0'', seq = 0, holder = NULL.';
    END IF;
    -- Whoever writes an event now is waited for: its place would be of before.
    LOCK TABLE email_tracking IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO place FROM email_relay FOR UPDATE;
    -- Those that Kafka does not have come next, in the order in which they were written, which is each job's own.
    UPDATE email_tracking AS e SET xid = here WHERE e.seq > place.seq OR e.xid > place.xid;
    GET DIAGNOSTICS unpublished = ROW_COUNT;
    -- Those that it has shall not come again when this cluster has counted so far.
    UPDATE email_tracking AS e SET xid = '1' WHERE e.xid > here;
    UPDATE email_relay SET xid = here, seq = 0, cluster = email_cluster(), holder = NULL, held_until = NULL;
    RETURN unpublished;
END $$;

COMMENT ON FUNCTION email_relay_rebase() IS
'After a restore from a dump: lets the relay go on, with every event that Kafka may not have; returns how many they are. It waits for open transactions, and holds up workers while it runs.
SELECT email_relay_rebase();';
