-- Who may be written to, and by which way out.

-- Side by side for one address: what is said later makes nothing weaker.
CREATE TYPE email_suppression_reason AS ENUM ('hard_bounce', 'complaint', 'manual', 'unsubscribe');

CREATE TABLE email_suppressions (
    address text NOT NULL,
    scope text NOT NULL DEFAULT 'all',
    reason email_suppression_reason NOT NULL,
    source text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    PRIMARY KEY (address, scope, reason),
    CONSTRAINT "scope must be all or a category of email_types"
    CHECK (scope IN ('all', 'booking', 'payment', 'account', 'marketing', 'system')),
    CONSTRAINT "address must be one address, like ann@example.com"
    CHECK (address ~ '^[^[:space:][:cntrl:]@<>(),;:"]+@[^[:space:][:cntrl:]@<>(),;:"]+$')
);

COMMENT ON TABLE email_suppressions IS 'Who may not be written to. Looked up by each claim; change it with email_suppress() and email_unsuppress().';
COMMENT ON COLUMN email_suppressions.address IS 'In the form of email_normal_address(): small letters, the domain in ASCII. A trigger sees to it.';
COMMENT ON COLUMN email_suppressions.scope IS 'all, or the one category of mail that it is about.';
COMMENT ON COLUMN email_suppressions.reason IS 'unsubscribe stops only types with opt_out; the others stop whatever the scope covers.';
COMMENT ON COLUMN email_suppressions.source IS 'Where it came from: a provider, a person, an import.';
COMMENT ON COLUMN email_suppressions.expires_at IS 'It counts until then; NULL: for good.';

CREATE TABLE email_routes (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    type varchar(50) REFERENCES email_types (type),
    domain text,
    providers text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT "a route is for a type, a domain, or both"
    CHECK (type IS NOT NULL OR domain IS NOT NULL),
    CONSTRAINT "domain must be small letters in its ASCII form, like example.com"
    CHECK (domain ~ '^[a-z0-9-]+(\.[a-z0-9-]+)*$'),
    CONSTRAINT "providers must be names such as smtp, ses or sendgrid, at least one"
    CHECK (cardinality(providers) > 0 AND array_position(providers, NULL) IS NULL)
);

-- NULL is a value here: one route for each.
CREATE UNIQUE INDEX email_routes_once ON email_routes (coalesce(type, ''), coalesce(domain, ''));

COMMENT ON TABLE email_routes IS 'Which providers a mail is offered to, in turn, instead of EMAIL_PROVIDER_PRIMARY and _FALLBACK. That of type and domain wins, then of the domain, then of the type.';
COMMENT ON COLUMN email_routes.domain IS 'The domain of the recipient.';
COMMENT ON COLUMN email_routes.providers IS 'Tried in this order. Workers must be configured for each: EMAIL_PROVIDER_PRIMARY or _FALLBACK names it.';
