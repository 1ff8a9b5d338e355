-- take_reject: out of the rejects, with the transaction that puts it into the queue.
DELETE FROM email_rejects
WHERE id = %(id)s
RETURNING source, position, raw
