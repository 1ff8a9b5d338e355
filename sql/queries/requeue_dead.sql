-- requeue_dead: send dead letters again.
SELECT email_requeue_dead(%(type)s, %(since)s::timestamptz)
