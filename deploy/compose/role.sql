-- The worker's role and its database: owning the database is all that migrate, the workers and the ingestors need.
-- For development: elsewhere the passwords are others, and do not lie in a file.
CREATE ROLE email LOGIN PASSWORD 'email';
CREATE DATABASE email OWNER email;
-- Grafana's. What it may read is granted when the tables are there.
CREATE ROLE email_reader LOGIN PASSWORD 'email_reader';
