-- events_so_far: how many events were ever written; the difference of two looks is a rate that costs nothing.
SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('email_tracking', 'seq')), 0)
