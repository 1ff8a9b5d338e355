-- store_template: a new version of a template; of a type's own name, it belongs to that type.
INSERT INTO email_templates (name, type, version, subject, html_content, text_content, variables)
VALUES (
    %(name)s::text,
    (SELECT type FROM email_types WHERE type = %(name)s::text),
    %(version)s,
    %(subject)s,
    %(html)s,
    %(text)s,
    %(variables)s
)
