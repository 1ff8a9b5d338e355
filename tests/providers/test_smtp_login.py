"""SMTP: AUTH in each mechanism, and a password that nobody gets to see."""

import logging
from base64 import b64encode

import pytest
from structlog.testing import capture_logs

from lab.smtp_script import Action, Context, Script
from tests.providers.hand_over import RecordingHandOver, send
from tests.providers.mails import make_mails
from tests.providers.services import SmtpRig
from worker.job import Accepted, Failed
from worker.setting_types import Secret

USER, PASSWORD = "mail-user", "s3cret pässword"


def offering(*mechanisms: str) -> Script:
    """A server that offers these."""
    return Script(ehlo=f"250-scripted.test\n250-PIPELINING\n250 AUTH {' '.join(mechanisms)}")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_each_mechanism_lets_us_in(rig: SmtpRig, mechanism: str) -> None:
    """The login is done once for a connection, in the mechanism that is offered, with a password beyond ASCII."""
    server = await rig.server(offering(mechanism), credentials=(USER, PASSWORD))
    provider = rig.provider(server, username=USER, password=PASSWORD)
    for first in (1, 11):
        outcomes = await send(provider, make_mails(6, first), RecordingHandOver())
        assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    (record,) = server.connections
    assert record.user == USER
    assert [line.split()[:2] for line in record.commands if line.startswith("AUTH")] == [["AUTH", mechanism]]


async def test_without_a_username_there_is_no_login(rig: SmtpRig) -> None:
    """A server that offers AUTH and does not ask for it is used without."""
    server = await rig.server(credentials=(USER, PASSWORD))
    outcomes = await send(rig.provider(server), make_mails(1), RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
    assert server.mails[0].user is None


@pytest.mark.parametrize("mechanisms", [(), ("GSSAPI", "NTLM")], ids=["none", "only unknown ones"])
async def test_a_login_that_is_not_possible_is_the_providers_fault(rig: SmtpRig, mechanisms: tuple[str, ...]) -> None:
    """With a username configured, nothing is sent to a server that offers no mechanism of ours."""
    script = offering(*mechanisms) if mechanisms else Script()
    server = await rig.server(script)
    outcomes = await send(rig.provider(server, username=USER, password=PASSWORD), make_mails(1), RecordingHandOver())
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].is_providers_fault
    assert server.mails == []


def repeat(context: Context) -> Action:
    """A server that is so kind as to say what it did not like."""
    return f"535 5.7.8 I do not like {context.line}"


@pytest.mark.parametrize("script", [Script(), Script(auth=repeat)], ids=["usual words", "words that repeat ours"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_a_wrong_password_fails_the_mails_and_is_shown_nowhere(
    rig: SmtpRig, caplog: pytest.LogCaptureFixture, mechanism: str, script: Script
) -> None:
    """Provider's fault, with the server's words; neither outcome nor log nor repr has the password, even encoded."""
    caplog.set_level(logging.DEBUG)
    server = await rig.server(
        Script(ehlo=offering(mechanism).ehlo, auth=script.auth), credentials=(USER, "the right one")
    )
    provider = rig.provider(server, username=USER, password=PASSWORD)
    hand_over = RecordingHandOver()
    with capture_logs() as events:
        outcomes = await send(provider, make_mails(2), hand_over)
    assert [isinstance(outcome, Failed) and outcome.is_providers_fault for outcome in outcomes.values()] == [True, True]
    assert server.mails == []
    assert hand_over.tally.admitted == []
    shown = repr((outcomes, events, caplog.text, provider, vars(provider), Secret(PASSWORD)))
    assert "535" in shown
    for encoded in (PASSWORD, *_in_base64(PASSWORD)):
        assert encoded not in shown


def _in_base64(password: str) -> list[str]:
    """The password as it travels in PLAIN and in LOGIN."""
    raw = password.encode()
    return [b64encode(b"\0" + USER.encode() + b"\0" + raw).decode(), b64encode(raw).decode()]
