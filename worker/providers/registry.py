"""Each provider by its name, made as the settings say. An SDK is imported when a provider needs it."""

from worker.compose import Composer, Sender
from worker.dkim import Signer
from worker.providers.base import Provider
from worker.providers.router import Patience, Router
from worker.providers.sendgrid import SendGridAccount, make_sendgrid
from worker.providers.ses import SesAccount, make_ses
from worker.providers.smtp import SmtpProvider
from worker.providers.smtp_connect import SmtpServer
from worker.providers.smtp_pool import Limits
from worker.setting_types import ProviderName
from worker.settings import Settings, dkim_key, provider_names


def sender_of(settings: Settings) -> Sender:
    """Who the mails are from."""
    return Sender(
        settings.email_from_address,
        settings.email_from_name,
        settings.email_reply_to,
        settings.email_unsubscribe_url,
        settings.email_max_message_bytes,
    )


def signer_of(settings: Settings) -> Signer | None:
    """What signs mails, if they are signed. Raises SettingsError for a key that is none."""
    if not settings.dkim_domain:
        return None
    return Signer(settings.dkim_domain, settings.dkim_selector, dkim_key(settings))


def make_router(settings: Settings, sender: Sender) -> Router:
    """All providers that the settings name, each behind its breaker."""
    patience = Patience(settings.email_breaker_failures, settings.email_breaker_seconds, settings.email_slow_seconds)
    return Router([make_provider(name, settings, sender) for name in provider_names(settings)], patience)


def make_provider(name: ProviderName, settings: Settings, sender: Sender) -> Provider:
    """The provider of that name, as configured."""
    connections = settings.email_job_concurrency
    per_call, answer_seconds = settings.email_job_batch_size, settings.email_job_timeout_seconds
    match name:
        case "sendgrid":
            sendgrid = SendGridAccount(
                settings.sendgrid_api_host,
                settings.sendgrid_api_key,
                settings.sendgrid_template_id,
                settings.sendgrid_sandbox_mode,
            )
            return make_sendgrid(name, sendgrid, sender, connections, per_call, answer_seconds)
        case "ses":
            ses = SesAccount(
                settings.aws_ses_region,
                settings.aws_ses_access_key,
                settings.aws_ses_secret_key,
                settings.aws_ses_endpoint_url,
                settings.aws_ses_configuration_set,
            )
            return make_ses(name, ses, sender, connections, per_call, answer_seconds)
        case "smtp" | "smtp_fallback":
            limits = Limits(answer_seconds, settings.smtp_connection_idle_seconds, settings.smtp_connection_mails)
            return SmtpProvider(
                name, smtp_server(name, settings), Composer(sender, signer_of(settings)), connections, limits
            )


def smtp_server(prefix: str, settings: Settings) -> SmtpServer:
    """Where the settings of that name lead."""
    return SmtpServer(
        getattr(settings, f"{prefix}_host"),
        getattr(settings, f"{prefix}_port"),
        getattr(settings, f"{prefix}_encryption"),
        getattr(settings, f"{prefix}_username"),
        getattr(settings, f"{prefix}_password"),
    )
