-- read_options: options too large to be claimed with their batch.
SELECT options::text FROM email_jobs WHERE id = %(id)s::uuid
