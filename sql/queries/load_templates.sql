-- load_templates: the newest active version of the named templates in each locale, and versions asked for by number.
SELECT
    name,
    locale,
    version,
    subject,
    html_content,
    text_content,
    is_active
FROM email_templates
WHERE
    name = any(%(names)s::text[])
    AND (is_active OR version = any(%(versions)s::integer[]))
ORDER BY version DESC
