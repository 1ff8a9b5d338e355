-- Who may not be written to. Addresses are compared in one form, whoever wrote them how.

CREATE OR REPLACE FUNCTION email_punycode(label text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
-- RFC 3492, section 6.3; the names are its own.
DECLARE
    points integer[] := (SELECT array_agg(ascii(c) ORDER BY i) FROM regexp_split_to_table(label, '') WITH ORDINALITY AS l (c, i));
    output text := (SELECT coalesce(string_agg(chr(p), '' ORDER BY i), '') FROM unnest(points) WITH ORDINALITY AS u (p, i) WHERE p < 128);
    b integer := length(output);
    h integer := b;
    n integer := 128;
    bias integer := 72;
    delta bigint := 0;
    q bigint;
    k integer;
    t integer;
    m integer;
    point integer;
BEGIN
    -- No domain has longer parts, and the work grows with the square of the length.
    IF label ~ '^[\x01-\x7f]*$' OR length(label) > 63 THEN
        RETURN label;
    END IF;
    IF b > 0 THEN
        output := output || '-';
    END IF;
    WHILE h < cardinality(points) LOOP
        m := (SELECT min(p) FROM unnest(points) AS u (p) WHERE p >= n);
        delta := delta + (m - n)::bigint * (h + 1);
        n := m;
        FOREACH point IN ARRAY points LOOP
            IF point < n THEN
                delta := delta + 1;
            ELSIF point = n THEN
                q := delta;
                k := 36;
                LOOP
                    t := least(greatest(k - bias, 1), 26);
                    EXIT WHEN q < t;
                    output := output || substr('abcdefghijklmnopqrstuvwxyz0123456789', (t + (q - t) % (36 - t))::integer + 1, 1);
                    q := (q - t) / (36 - t);
                    k := k + 36;
                END LOOP;
                output := output || substr('abcdefghijklmnopqrstuvwxyz0123456789', q::integer + 1, 1);
                delta := CASE WHEN h = b THEN delta / 700 ELSE delta / 2 END;
                delta := delta + delta / (h + 1);
                k := 0;
                WHILE delta > 455 LOOP
                    delta := delta / 35;
                    k := k + 36;
                END LOOP;
                bias := (k + 36 * delta / (delta + 38))::integer;
                delta := 0;
                h := h + 1;
            END IF;
        END LOOP;
        delta := delta + 1;
        n := n + 1;
    END LOOP;
    RETURN 'xn--' || output;
END $$;

COMMENT ON FUNCTION email_punycode(text) IS 'A part of a domain name in its ASCII form (RFC 3492).
SELECT email_punycode(''münchen'');';

CREATE OR REPLACE FUNCTION email_foreign_address(address text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT normalize(lower(substr(address, 1, length(address) - length(part.domain))), NFC) || (
        SELECT string_agg(email_punycode(label), '.' ORDER BY i)
        FROM regexp_split_to_table(lower(normalize(part.seen, NFKC)), '[.。]') WITH ORDINALITY AS l (label, i)
    )
    -- What UTS 46 ignores in a domain: soft hyphen, zero width space, word joiner, byte order mark, variation selectors.
    FROM (
        SELECT
            substring(address FROM '[^@]*$') AS domain,
            regexp_replace(substring(address FROM '[^@]*$'), '[\u00ad\u200b\u2060\ufeff\ufe00-\ufe0f]', '', 'g') AS seen
    ) AS part
$$;

COMMENT ON FUNCTION email_foreign_address(text) IS 'The part of email_normal_address() for addresses with other than ASCII letters.
SELECT email_foreign_address(''Ann@München.example'');';

CREATE OR REPLACE FUNCTION email_normal_address(address text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(address) = length(address) THEN lower(address) ELSE email_foreign_address(address) END
$$;

COMMENT ON FUNCTION email_normal_address(text) IS
'The form in which addresses are compared: small letters, the domain in ASCII.
SELECT email_normal_address(''Ann@Example.COM'');';

CREATE OR REPLACE FUNCTION email_suppressions_normal() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.address := email_normal_address(trim(NEW.address));
    RETURN NEW;
END $$;

COMMENT ON FUNCTION email_suppressions_normal() IS 'Trigger: an address is kept in the form in which it is looked up.';

CREATE OR REPLACE TRIGGER email_suppressions_normal BEFORE INSERT OR UPDATE OF address ON email_suppressions
FOR EACH ROW EXECUTE FUNCTION email_suppressions_normal();

CREATE OR REPLACE FUNCTION email_suppress(
    address text,
    reason email_suppression_reason DEFAULT 'manual',
    scope text DEFAULT 'all',
    source text DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL
) RETURNS boolean
LANGUAGE sql AS $$
    INSERT INTO email_suppressions AS s (address, scope, reason, source, expires_at)
    VALUES (email_normal_address(trim($1)), $3, $2, $4, $5)
    ON CONFLICT ON CONSTRAINT email_suppressions_pkey DO UPDATE
    SET source = excluded.source,
        expires_at = CASE
            WHEN s.expires_at <= clock_timestamp() THEN excluded.expires_at
            WHEN s.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
            ELSE greatest(s.expires_at, excluded.expires_at)
        END
    RETURNING s.xmax = 0
$$;

COMMENT ON FUNCTION email_suppress(text, email_suppression_reason, text, text, timestamptz) IS
'Nobody writes to this address any more: nothing that is claimed after this commits. Says whether it is new.
SELECT email_suppress(''ann@example.com'', ''unsubscribe'', ''marketing'');';

CREATE OR REPLACE FUNCTION email_erased_address(address text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT encode(sha256(key || convert_to(email_normal_address(address), 'UTF8')), 'hex') || '@erased.invalid'
    FROM email_secret
$$;

COMMENT ON FUNCTION email_erased_address(text) IS
'What an erased address is called from then on: a hash that only this database can make, and that leads nowhere.
SELECT email_erased_address(''ann@example.com'');';

CREATE OR REPLACE FUNCTION email_unsuppress(address text, scope text DEFAULT NULL) RETURNS bigint
LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM email_suppressions AS s
        WHERE
            s.address IN (email_normal_address(trim($1)), email_erased_address(trim($1)))
            AND ($2 IS NULL OR s.scope = $2)
        RETURNING 1
    )

    SELECT count(*) FROM gone
$$;

COMMENT ON FUNCTION email_unsuppress(text, text) IS
'The address may be written to again, in one scope or in all; returns how many entries are gone. Jobs that ended as suppressed stay so: email_requeue().
SELECT email_unsuppress(''ann@example.com'');';
