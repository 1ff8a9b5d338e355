-- catalog_version: the version that the next claim would show.
SELECT version FROM email_catalog
