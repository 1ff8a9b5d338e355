-- The same check of addresses, without the bounded repetition that made it the dearest part of a settle: a table's
-- checks run at every UPDATE, and {1,64} costs this pattern 5.7 µs where + costs 0.6.

ALTER TABLE email_jobs
DROP CONSTRAINT "recipient_email must be one address, like ann@example.com",
ADD CONSTRAINT "recipient_email must be one address, like ann@example.com"
CHECK (
    recipient_email
    ~ '^[^[:space:][:cntrl:]@<>(),;:"\[\]\\]+@[^[:space:][:cntrl:]@<>(),;:"\[\]\\.]+(\.[^[:space:][:cntrl:]@<>(),;:"\[\]\\.]+)*$'
    AND strpos(recipient_email, '@') <= 65
);
