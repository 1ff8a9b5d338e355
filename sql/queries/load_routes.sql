-- load_routes: which providers a type or a domain is for.
SELECT
    type,
    domain,
    providers
FROM email_routes
