-- free_connections: how many more connections this role may open to this database, by the narrowest of the limits.
SELECT
    least(
        current_setting('max_connections')::integer
        - CASE WHEN role.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::integer END
        - (SELECT sum(numbackends) FROM pg_stat_database),
        CASE
            WHEN role.rolconnlimit >= 0 AND NOT role.rolsuper
                THEN role.rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user)
        END,
        CASE
            WHEN database.datconnlimit >= 0 AND NOT role.rolsuper
                THEN database.datconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database())
        END
    )::integer
FROM pg_roles AS role
CROSS JOIN pg_database AS database
WHERE role.rolname = current_user AND database.datname = current_database()
