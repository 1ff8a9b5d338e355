-- store_jobs: put messages into the queue; returns the job_ids that are new. The rest was there before.
INSERT INTO email_jobs (
    job_id, type, template, recipient_email, recipient_name, recipient_user_id, data, priority, scheduled_at,
    expires_at, retry_count, max_retries, locale, subject, content, campaign_id, options, extra, source
)
SELECT
    message.job_id,
    message.type,
    message.template,
    message.email,
    message.name,
    message.user_id,
    message.data::jsonb,
    message.priority::email_priority,
    message.scheduled_at::timestamptz,
    message.expires_at::timestamptz,
    message.retry_count,
    message.max_retries,
    message.locale,
    message.subject,
    message.content,
    message.campaign_id::uuid,
    message.options::jsonb,
    message.extra::jsonb,
    %(source)s
FROM
    unnest(
        %(job_ids)s::text[], %(types)s::text[], %(templates)s::text[], %(emails)s::text[], %(names)s::text[],
        %(user_ids)s::text[], %(datas)s::text[], %(priorities)s::text[], %(scheduled)s::text[], %(expires)s::text[],
        %(retry_counts)s::integer[], %(max_retries)s::integer[], %(locales)s::text[], %(subjects)s::text[],
        %(contents)s::text[], %(campaigns)s::text[], %(options)s::text[], %(extras)s::text[]
    ) WITH ORDINALITY AS message (
        job_id, type, template, email, name, user_id, data, priority, scheduled_at, expires_at,
        retry_count, max_retries, locale, subject, content, campaign_id, options, extra, number
    )
ORDER BY message.number
ON CONFLICT (job_id) DO NOTHING
RETURNING job_id
