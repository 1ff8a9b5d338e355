-- move_relay: everything up to here is in Kafka. No row: another relay has taken over.
UPDATE email_relay
SET
    xid = %(xid)s::xid8,
    seq = %(seq)s,
    published_at = clock_timestamp(),
    held_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE holder = %(holder)s
RETURNING seq
