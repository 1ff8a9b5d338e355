-- load_types: the policy of each mail type.
SELECT
    type,
    category::text,
    opt_out,
    max_retries
FROM email_types
