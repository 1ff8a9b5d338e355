-- Running workers see a change of templates, types, routes, ceilings or pauses with their next claim.

CREATE OR REPLACE FUNCTION email_catalog_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE email_catalog SET version = version + 1;
    RETURN NULL;
END $$;

COMMENT ON FUNCTION email_catalog_changed() IS 'Trigger: lets every worker read templates, types, routes, ceilings and pauses again, with its next claim.';

CREATE OR REPLACE TRIGGER email_templates_changed AFTER INSERT OR UPDATE OR DELETE ON email_templates
FOR EACH STATEMENT EXECUTE FUNCTION email_catalog_changed();

CREATE OR REPLACE TRIGGER email_types_changed AFTER INSERT OR UPDATE OR DELETE ON email_types
FOR EACH STATEMENT EXECUTE FUNCTION email_catalog_changed();

CREATE OR REPLACE TRIGGER email_routes_changed AFTER INSERT OR UPDATE OR DELETE ON email_routes
FOR EACH STATEMENT EXECUTE FUNCTION email_catalog_changed();

CREATE OR REPLACE TRIGGER email_warmup_changed AFTER INSERT OR UPDATE OR DELETE ON email_warmup
FOR EACH STATEMENT EXECUTE FUNCTION email_catalog_changed();

CREATE OR REPLACE TRIGGER email_pauses_changed AFTER INSERT OR UPDATE OR DELETE ON email_pauses
FOR EACH STATEMENT EXECUTE FUNCTION email_catalog_changed();
