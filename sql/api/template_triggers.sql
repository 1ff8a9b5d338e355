-- Running workers see a change of templates or types at once.

CREATE OR REPLACE FUNCTION email_catalog_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('email_catalog', TG_TABLE_NAME);
    RETURN NULL;
END $$;

COMMENT ON FUNCTION email_catalog_changed() IS 'Trigger: tells every worker to read templates and types again.';

CREATE OR REPLACE TRIGGER email_templates_changed AFTER INSERT OR UPDATE OR DELETE ON email_templates
FOR EACH STATEMENT EXECUTE FUNCTION email_catalog_changed();

CREATE OR REPLACE TRIGGER email_types_changed AFTER INSERT OR UPDATE OR DELETE ON email_types
FOR EACH STATEMENT EXECUTE FUNCTION email_catalog_changed();
