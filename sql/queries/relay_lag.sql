-- relay_lag: how old the oldest event is that the relay has not published; 0 when there is none.
-- index: email_tracking_pkey
SELECT coalesce(extract(EPOCH FROM clock_timestamp() - min(next.occurred_at)), 0)::double precision
FROM email_relay AS relay
CROSS JOIN LATERAL (
    SELECT event.occurred_at
    FROM email_tracking AS event
    WHERE (event.xid, event.seq) > (relay.xid, relay.seq)
    ORDER BY event.xid, event.seq
    LIMIT 1
) AS next
