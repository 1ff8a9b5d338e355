-- create_schema_record: the table in which migrate notes what it has applied.
CREATE TABLE IF NOT EXISTS email_schema (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE email_schema IS 'What email-worker migrate has applied to this database.'
