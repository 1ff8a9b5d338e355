-- load_ceilings: how much each provider may get on a day, from today on.
SELECT
    provider,
    domain,
    day,
    ceiling
FROM email_warmup
WHERE day >= (current_timestamp AT TIME ZONE 'UTC')::date
