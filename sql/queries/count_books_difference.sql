-- count_books_difference: jobs whose status and latest status event disagree.
SELECT count(*) FROM email_books_difference(%(period)s::interval)
