-- make_buckets: new buckets are full.
INSERT INTO email_buckets (bucket)
SELECT asked.bucket FROM unnest(%(buckets)s::text[]) AS asked (bucket)
ORDER BY asked.bucket
ON CONFLICT (bucket) DO NOTHING
