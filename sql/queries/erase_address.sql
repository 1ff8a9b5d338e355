-- erase_address: everything that the database knows of one person.
SELECT
    what,
    how_many,
    is_left
FROM email_erase(%(address)s)
