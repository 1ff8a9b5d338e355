-- known_types: the mail types that there are.
SELECT type
FROM email_types
