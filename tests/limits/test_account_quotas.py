"""What SES's account allows lowers the limit by itself."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from lab.ses_conduct import ACCOUNT, Act, Drop, Refusal, Request, Stall
from lab.ses_server import SesServer
from lab.unlimited import unlimited
from tests.integration.rows import Connection, insert_jobs, rows
from tests.limits.fleet import assert_within
from tests.providers.ses_service import KEYS, make_provider
from tests.support import Database, eventually, running_worker
from worker.account_quotas import AccountQuotas
from worker.buckets import Limit
from worker.errors import AnswerLost
from worker.providers.base import Quota
from worker.providers.calls import CalledProvider
from worker.rate import Rate

SANDBOX = {"MaxSendRate": 5.0, "Max24HourSend": 200.0, "SentLast24Hours": 199.0}


def provider_of(server: SesServer) -> CalledProvider:
    return cast(CalledProvider, make_provider(server))


async def test_the_quota_is_what_the_account_says() -> None:
    """-1 is no limit."""
    async with SesServer(keys=KEYS) as server:
        provider = provider_of(server)
        server.account = {"SendQuota": SANDBOX}
        assert await provider.quota() == Quota(5.0, 200.0, 199.0)
        server.account = {"SendQuota": SANDBOX | {"Max24HourSend": -1.0, "MaxSendRate": -1.0}}
        assert await provider.quota() == Quota(None, None, 199.0)
        await provider.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: Refusal("AccessDeniedException"), "AccessDeniedException"),
        (lambda _: Drop(), "no answer"),
        (lambda request: None if request.operation == ACCOUNT else Stall(), "KeyError"),
    ],
    ids=["no permission", "dropped", "without a quota"],
)
async def test_an_account_that_does_not_say_it_limits_nothing(answer: Callable[[Request], Act], words: str) -> None:
    """The worker goes on as the settings say, and says in its log why."""
    async with SesServer(answer, keys=KEYS) as server:
        server.account = {}
        provider = provider_of(server)
        with pytest.raises(AnswerLost, match=words):
            await provider.quota()
        limits = unlimited()
        quotas = AccountQuotas([provider], limits)
        quotas.start()
        await asyncio.sleep(0.1)
        await quotas.close()
        assert limits.provider_limit("ses") is None
        await provider.close()


async def test_the_slower_of_setting_and_account_counts() -> None:
    """Whichever it is."""
    limits = unlimited()
    limits.account_allows("ses", Rate(0.2, 5))
    assert limits.provider_limit("ses") == Limit("provider ses", 0.2, 5)
    limits.account_allows("ses", Rate(0.01, 100))
    assert limits.provider_limit("ses") == Limit("provider ses", 0.01, 100)


async def test_a_worker_keeps_to_the_accounts_rate(database: Database, db: Connection) -> None:
    """Nothing is set: the account's five a second are asked for, and kept."""
    went: list[float] = []

    def note(request: Request) -> Act:
        went.extend([asyncio.get_running_loop().time()] * len(request.entries) * (request.operation != ACCOUNT))
        return None

    async with SesServer(note, keys=KEYS) as server:
        server.account = {"SendQuota": SANDBOX}
        ((access_key, secret),) = KEYS.items()
        environment = database.environment(
            EMAIL_PROVIDER_PRIMARY="ses",
            AWS_SES_ENDPOINT_URL=server.url,
            AWS_SES_ACCESS_KEY=access_key,
            AWS_SES_SECRET_KEY=secret,
        )
        await asyncio.to_thread(_send, environment, db)
    assert len(went) == 25
    assert_within(went, Limit("provider ses", 0.2, 5), 0.3)


def _send(environment: dict[str, Any], db: Connection) -> None:
    with running_worker(environment) as worker:
        # The account is asked at the start, and its mails of the day are nearly used up.
        eventually(lambda: "nearly used up" in worker.log_text(), "the account was asked")
        insert_jobs(db, 25)
        eventually(lambda: rows(db, "SELECT 1 FROM email_jobs WHERE status <> 'sent'") == [], "all are sent")
