-- leave_relay: another relay may begin at once.
UPDATE email_relay
SET held_until = NULL
WHERE holder = %(holder)s
