-- load_pauses: what is not sent now.
SELECT
    kind,
    name
FROM email_pauses
