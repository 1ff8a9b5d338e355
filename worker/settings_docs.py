"""What each setting means, and the documents made of it: `.env.example` and `docs/configuration.md`."""

import msgspec

from worker.setting_types import Secret
from worker.settings import Settings, allowed

DOCS: dict[str, str] = {
    "worker_name": "Names this process in logs, in the journal and in Postgres. Default: host and process id.",
    "environment": (
        "In production logs are JSON and EMAIL_FROM_ADDRESS must be set. Elsewhere recipients must be limited, or the "
        "provider be on this machine."
    ),
    "log_level": "INFO is a line per batch, DEBUG a line per mail.",
    "log_pii": "Whole addresses in the logs, instead of a***@example.com. Contents and secrets are never there.",
    "log_slow_seconds": "A batch that takes longer is told at warning. 0: none is.",
    "metrics_port": "Where /metrics, /healthz and /readyz are served, by every process. 0: nowhere.",
    "metrics_port_range": "A process takes the first free one of so many ports: for several on one host.",
    "worker_concurrency": "Batches at once. The process holds up to this many connections to Postgres, plus 7.",
    "worker_batch_size": "Rows claimed per transaction.",
    "db_host": "Where Postgres is: a host, or the folder of its socket. Never a pooler.",
    "db_port": "Its port.",
    "db_name": "Its database.",
    "db_user": "The role to connect as.",
    "db_password": "Its password, if it needs one.",
    "db_ssl_mode": "libpq's sslmode.",
    "email_provider_primary": "The provider that is tried first.",
    "email_provider_fallback": "Those that get a mail, in turn, when the one before definitely failed. Empty: none.",
    "email_from_address": "The sender of every mail, unless a job's options name another.",
    "email_from_name": "The sender's name as recipients see it; templates see it as brand.name.",
    "email_reply_to": "Where answers go. Empty: to the sender.",
    "email_unsubscribe_url": (
        "For types with opt-out: the link of List-Unsubscribe. {id} becomes the job's id, {email} the address."
    ),
    "email_allowed_recipients": (
        "Only these are written to, like *@example.com,me@example.org; others are suppressed, or redirected."
    ),
    "email_redirect_to": "Gets every mail instead of those who are not allowed, or of everybody. Empty: nobody.",
    "smtp_host": "The SMTP server.",
    "smtp_port": "Its port: 25, 587 for starttls, 465 for tls.",
    "smtp_username": "User for AUTH. Empty: no AUTH.",
    "smtp_password": "Its password.",
    "smtp_encryption": "starttls (refused if not offered), tls from the first byte, or none. Certificates are checked.",
    "smtp_fallback_host": "The second SMTP server, provider smtp_fallback.",
    "smtp_fallback_port": "As SMTP_PORT.",
    "smtp_fallback_username": "As SMTP_USERNAME.",
    "smtp_fallback_password": "As SMTP_PASSWORD.",
    "smtp_fallback_encryption": "As SMTP_ENCRYPTION.",
    "smtp_connection_mails": "Mails over one connection before it is replaced.",
    "smtp_connection_idle_seconds": "How long an unused connection is kept.",
    "dkim_domain": "Signs what goes by SMTP with DKIM, for this domain. Empty: no signature.",
    "dkim_selector": "Names the key in the DNS: SELECTOR._domainkey.DOMAIN.",
    "dkim_private_key": "The key in PEM, RSA or Ed25519; line ends may be written as \\n.",
    "dkim_private_key_file": "A file with the key instead.",
    "dkim_key_expires": "The day by which the key is to be replaced: an alert comes two weeks before. Empty: never.",
    "sendgrid_api_key": "SendGrid's key; it needs the right to send mail.",
    "sendgrid_api_host": "Where SendGrid is; https://api.eu.sendgrid.com for its EU region.",
    "sendgrid_template_id": (
        "A dynamic template of {{{subject}}}, {{{html}}} and {{{text}}} only: then many mails go in one request."
    ),
    "sendgrid_sandbox_mode": "SendGrid checks the requests and sends nothing.",
    "aws_ses_region": "The AWS region of SES.",
    "aws_ses_access_key": "Access key. Empty: the usual AWS chain (environment, profile, instance role).",
    "aws_ses_secret_key": "Its secret.",
    "aws_ses_endpoint_url": "Another address of SES. Empty: that of the region.",
    "aws_ses_configuration_set": "The configuration set of every mail. Empty: the account's default.",
    "email_job_concurrency": "Connections per provider; calls at once, where it is called.",
    "email_job_batch_size": "Mails per call to a provider that takes many.",
    "email_job_timeout_seconds": "Longest wait for a provider's answer; the batch deadline cuts it shorter.",
    "email_batch_deadline_seconds": (
        "A batch ends by then: what is handed over and unanswered is unknown. No hand-over in its last third."
    ),
    "email_breaker_failures": "After so many failed mails in a row a provider is left alone. 0: never.",
    "email_breaker_seconds": "For so long; then one mail tries whether it works again.",
    "email_slow_seconds": "An answer that takes longer counts as a failure of the provider, not of the mail.",
    "email_rate_smtp": "Most mails through this provider, by all workers together. A burst not given is a second's.",
    "email_rate_smtp_fallback": "As EMAIL_RATE_SMTP.",
    "email_rate_ses": "As EMAIL_RATE_SMTP; the account's own limit counts where it is lower.",
    "email_rate_sendgrid": "As EMAIL_RATE_SMTP.",
    "email_rate_domain": "Most mails to each recipient domain, and to some of them another rate.",
    "email_rate_recipient": "Most mails of one type to one address.",
    "email_rate_transactional_share": "The share of each burst that bulk mail leaves to transactional mail.",
    "email_retry_delay_seconds": "Wait before the first retry; doubles with each.",
    "email_max_retries": "Retries of a job that, like its type, names none itself.",
    "email_doubt_seconds": "How long an effectively_once job waits for evidence before it is sent again.",
    "email_max_message_bytes": "Largest message, attachments included; a larger one is dead.",
    "retention_days": "Finished jobs, and rejects, older than this are purged; email_types has it per type. 0: never.",
    "retention_key_days": "So long a purged job's job_id is still known. More than Kafka keeps its messages.",
    "email_dead_letter_queue": "The Kafka topic for rejected messages; the Redis list for those, and for dead letters.",
    "kafka_bootstrap_servers": "Brokers, host:port with commas between. Empty: no Kafka.",
    "kafka_topic_email_jobs": "The topic that kafka_ingest reads.",
    "kafka_topic_email_events": "The topic that events are published to.",
    "kafka_group_id": "The consumer group of the ingestors.",
    "kafka_partitions": "Only these partitions, for one shard of several. Empty: the group shares all.",
    "kafka_session_timeout_seconds": "After so long without a sign of life an ingestor's partitions go to others.",
    "kafka_security_protocol": "How brokers are spoken to.",
    "kafka_sasl_mechanism": "How to log in, with one of the SASL protocols.",
    "kafka_sasl_username": "As whom to log in.",
    "kafka_sasl_password": "With which password.",
    "kafka_ssl_ca_location": "File of the certificates to trust. Empty: those of the system.",
    "redis_host": "Where Redis or Valkey is. Empty: no Redis.",
    "redis_port": "Its port.",
    "redis_password": "Its password, if it needs one.",
    "redis_db": "Its database.",
    "redis_ssl": "Whether to speak TLS.",
    "redis_list_email_jobs": "The list that redis_ingest takes jobs from, at its left end.",
    "redis_stream_email_jobs": "A stream that redis_ingest reads too, by a consumer group. Empty: none.",
    "redis_status_ttl_seconds": "How long a job's status stays in Redis after its last change.",
    "redis_dead_letters_kept": "The newest so many entries of the dead letter list are kept.",
    "ingest_batch_size": "Messages that an ingestor stores per transaction.",
}

_COMPUTED = {"worker_name": ""}


def _rows() -> list[tuple[str, str, str, str]]:
    """(variable, default, allowed, meaning) of every setting."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = _COMPUTED.get(field.name, field.default)
        text = "" if isinstance(default, Secret) else f"{default:g}" if isinstance(default, float) else _text(default)
        rows.append((field.name.upper(), text, allowed(field.type), DOCS[field.name]))
    return rows


def _text(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def env_example() -> str:
    """Every variable with its default, commented out."""
    lines = ["# Every setting with its default. Generated: email-worker config --format env > .env.example"]
    for variable, default, may_be, meaning in _rows():
        lines += ["", f"# {meaning}", f"# Must be {may_be}.", f"#{variable}={default}"]
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """The table of all settings."""
    lines = [
        "# Configuration",
        "",
        "Environment variables, or the same names in a `.env` file of the working folder; the environment wins.",
        "Generated: `email-worker config --format markdown > docs/configuration.md`.",
        "",
        "| variable | default | allowed | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{variable}` | {f'`{default}`' if default else ''} | {may_be} | {meaning} |"
        for variable, default, may_be, meaning in _rows()
    ]
    return "\n".join(lines) + "\n"
