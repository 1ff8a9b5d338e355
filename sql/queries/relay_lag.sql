-- relay_lag: how old the oldest event is that the relay has not published; 0 when there is none. With a place of another
-- cluster nobody can tell: as old as the last thing that it published.
-- index: email_tracking_pkey
SELECT
    coalesce(
        extract(
            EPOCH FROM
            clock_timestamp() - CASE
                WHEN email_relay_is_elsewhere() THEN min(relay.published_at) ELSE min(next.occurred_at)
            END
        ),
        0
    )::double precision
FROM email_relay AS relay
LEFT JOIN LATERAL (
    SELECT event.occurred_at
    FROM email_tracking AS event
    WHERE (event.xid, event.seq) > (relay.xid, relay.seq)
    ORDER BY event.xid, event.seq
    LIMIT 1
) AS next ON true
