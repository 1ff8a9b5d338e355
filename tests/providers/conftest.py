"""Fixtures of the provider tests: a service of each kind, and both event loops where it matters."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from lab.certificate import Certificates, make_certificates
from tests.providers.sendgrid_service import SendGridService
from tests.providers.services import OFFERS, SERVICES, Service, SmtpRig
from tests.providers.ses_service import SesService

# What takes over transports and drives them must do so on the loop of either command.
ON_BOTH_LOOPS = ("test_conformance", "test_conformance_ends", "test_smtp_tls", "test_smtp_chaos", "test_smtp_abrupt")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """`procrastinate worker` runs on asyncio's loop, `email-worker worker` on uvloop's."""
    if item.path.stem in ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


# Every kind of provider, by name; the conformance suite runs with each.
ALL_SERVICES: dict[str, Callable[[], Service]] = SERVICES | {
    "ses": SesService,
    "sendgrid": SendGridService,
    "sendgrid one by one": lambda: SendGridService(""),
}


@pytest.fixture(params=ALL_SERVICES)
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """A service with its provider, of each kind in turn."""
    async with ALL_SERVICES[request.param]() as running:
        yield running


@pytest.fixture
async def rig() -> AsyncIterator[SmtpRig]:
    """Scripted SMTP servers, and providers for them."""
    opened = SmtpRig()
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """Certificates for localhost and 127.0.0.1, from an authority that nobody trusts by default."""
    return make_certificates()


@pytest.fixture
def trusted(certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """The same, trusted by this process through SSL_CERT_FILE, as an operator would have it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.write_authority(tmp_path / "authority.pem")))
    return certificates


@pytest.fixture(params=OFFERS)
def extensions(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What a server offers: with PIPELINING, and without."""
    return OFFERS[request.param]
