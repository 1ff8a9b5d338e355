-- How fast mail may go: token buckets of the whole fleet, and the daily ceilings of a warm-up.

-- NULL is no: the column costs nothing where there are no limits.
ALTER TABLE email_jobs ADD COLUMN has_turn boolean;

COMMENT ON COLUMN email_jobs.has_turn IS 'A rate limit made it wait until next_attempt_at; then it goes before those that come new.';

-- Times are in seconds since 1970, as in worker/buckets.py, which counts with them.
CREATE TABLE email_buckets (
    bucket text PRIMARY KEY,
    used double precision NOT NULL DEFAULT 0,
    transactional_line double precision NOT NULL DEFAULT 0,
    bulk_line double precision NOT NULL DEFAULT 0,
    transactional_turns double precision NOT NULL DEFAULT 0,
    bulk_turns double precision NOT NULL DEFAULT 0,
    slowness double precision NOT NULL DEFAULT 1,
    slowed_at double precision NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

COMMENT ON TABLE email_buckets IS 'Token buckets while Postgres keeps them (see email_bucket_keeper); written by workers alone.';
COMMENT ON COLUMN email_buckets.used IS 'GCRA''s theoretical arrival time: when the bucket will be full again. For a daily ceiling: mails counted.';
COMMENT ON COLUMN email_buckets.transactional_line IS 'When the last transactional mail that waits for its turn will have had it.';
COMMENT ON COLUMN email_buckets.bulk_line IS 'The same for bulk mail.';
COMMENT ON COLUMN email_buckets.transactional_turns IS 'When the last one will have gone that came at its turn and found others had been faster.';
COMMENT ON COLUMN email_buckets.bulk_turns IS 'The same for bulk mail.';
COMMENT ON COLUMN email_buckets.slowness IS 'How many times slower than its rate the bucket was made at slowed_at, by a provider that asked for it.';

CREATE TABLE email_bucket_keeper (
    keeper text NOT NULL CHECK (keeper IN ('postgres', 'redis')),
    epoch bigint NOT NULL,
    begins_at timestamptz NOT NULL,
    is_the_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_the_only_row)
);

INSERT INTO email_bucket_keeper (keeper, epoch, begins_at) VALUES ('postgres', 1, clock_timestamp());

COMMENT ON TABLE email_bucket_keeper IS 'One row: who keeps the token buckets now. Workers look each second, and a change begins later than that: never do two count.';

CREATE TABLE email_warmup (
    provider text NOT NULL,
    domain text NOT NULL DEFAULT '*',
    day date NOT NULL,
    ceiling integer NOT NULL CHECK (ceiling >= 0),
    PRIMARY KEY (day, provider, domain),
    CONSTRAINT "domain must be small letters in its ASCII form, like example.com, or * for all together"
    CHECK (domain = '*' OR domain ~ '^[a-z0-9-]+(\.[a-z0-9-]+)*$')
);

COMMENT ON TABLE email_warmup IS 'How many mails a provider may get on a day (UTC), in all or for one recipient domain. What is more goes to the next provider, or waits for the next day.';
COMMENT ON COLUMN email_warmup.domain IS 'The domain of the recipient; * for all domains together.';
