-- newest_template: what a name's default locale says now, to see whether the shipped files differ.
SELECT
    version,
    subject,
    html_content,
    text_content
FROM email_templates
WHERE name = %(name)s AND locale = 'default'
ORDER BY version DESC
LIMIT 1
