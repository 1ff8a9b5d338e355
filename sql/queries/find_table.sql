-- find_table: whether a table of that name is on the search path.
SELECT to_regclass(%(name)s) IS NOT NULL
