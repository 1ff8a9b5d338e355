-- read_schema_record: what has been applied to this database.
SELECT
    name,
    checksum
FROM email_schema
