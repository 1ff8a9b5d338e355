-- check_session: the mark that our connection settings leave in a session.
SELECT current_setting('email_worker.session', true)
