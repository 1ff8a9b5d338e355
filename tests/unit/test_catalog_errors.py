"""A broken or unknown template is an answer that the catalog keeps: it must cost nothing to give it again."""

from typing import Any, cast

import pytest
from psycopg import AsyncConnection

from tests.unit.values import make_job
from worker.catalog import Catalog, Edition
from worker.errors import TemplateError
from worker.job import Job


class EmptyDatabase:
    """A connection to a database without rows, as far as the catalog looks."""

    async def execute(self, _query: bytes, _parameters: object = None) -> "EmptyDatabase":
        """Any statement."""
        return self

    async def fetchall(self) -> list[Any]:
        """No rows."""
        return []


def frames_kept(edition: Edition, job: Job) -> int:
    """How many frames the catalog's answer, an error, keeps alive."""
    with pytest.raises(TemplateError) as caught:
        edition.template(job)
    kept, traceback = 0, caught.value.__traceback__
    while traceback is not None:
        kept, traceback = kept + 1, traceback.tb_next
    return kept


async def test_an_unknown_template_answered_again_keeps_nothing_alive() -> None:
    """A kept exception that is raised anew grows by a traceback, and keeps its batch's jobs, each time: a leak."""
    catalog, job = Catalog(), make_job(template="no-such-template")
    edition = await catalog.edition(cast(AsyncConnection[Any], EmptyDatabase()), [job])
    first = frames_kept(edition, job)
    assert [frames_kept(edition, job) for _ in range(3)] == [first] * 3
