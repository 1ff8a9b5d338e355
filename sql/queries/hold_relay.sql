-- hold_relay: become, or stay, the one relay that is active, for so long; returns where to go on, and whether that is a place
-- of another cluster. No row: another one is.
UPDATE email_relay
SET
    holder = %(holder)s,
    held_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE holder = %(holder)s OR held_until IS NULL OR held_until < clock_timestamp()
RETURNING xid::text, seq, email_relay_is_elsewhere()
