-- email_templates: what mails say. A row wins over the shipped file of the same name.

CREATE TABLE email_templates (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name varchar(100) NOT NULL,
    locale varchar(35) NOT NULL DEFAULT 'default',
    version integer NOT NULL DEFAULT 1,
    type varchar(50) REFERENCES email_types (type),
    subject text NOT NULL,
    html_content text NOT NULL,
    text_content text,
    variables jsonb NOT NULL DEFAULT '[]',
    is_active boolean NOT NULL DEFAULT true,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (name, locale, version),
    CONSTRAINT "name must be letters, digits, - and _"
    CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_-]*$'),
    CONSTRAINT "locale must be default or a language tag such as en or pt-BR"
    CHECK (locale ~ '^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$'),
    CONSTRAINT "version must be 1 or more"
    CHECK (version >= 1),
    CONSTRAINT "variables must be a JSON array of names"
    CHECK (jsonb_typeof(variables) = 'array'),
    CONSTRAINT "each part must be under 1 MB"
    CHECK (octet_length(subject) + octet_length(html_content) + coalesce(octet_length(text_content), 0) <= 3000000)
);

-- Raised by every change of templates or types, and read with each claim: so a batch never uses what was true before its
-- jobs came. A row, not a sequence, because it must be seen with the change and not before.
CREATE TABLE email_catalog (
    version bigint NOT NULL,
    is_the_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_the_only_row)
);

INSERT INTO email_catalog (version) VALUES (1);

COMMENT ON TABLE email_catalog IS 'One row: the version of email_templates and email_types together.';

COMMENT ON TABLE email_templates IS 'Jinja2 sources. The highest active version of (name, locale), else (name, language), else (name, default) is used.';
COMMENT ON COLUMN email_templates.text_content IS 'NULL: the text part is made from the HTML.';
COMMENT ON COLUMN email_templates.variables IS 'Names that the template needs from a job''s data; written by email-worker template sync.';
