"""Settling: the end of a batch, written for all its jobs at once in the claiming transaction, and committed."""

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection

from worker.db import array_literal, query
from worker.job import Settlement
from worker.journal import OutcomeRow, write_outcomes


async def settle(
    connection: AsyncConnection[Any], settlements: Sequence[Settlement], outcomes: Sequence[OutcomeRow]
) -> None:
    """Write jobs, events and the answers that the journal has not written yet; commit. One round trip.

    Jobs of the batch without a settlement stay as they were, and are free with the commit.
    """
    async with connection.pipeline():
        if outcomes:
            await write_outcomes(connection, outcomes)
        if settlements:
            await connection.execute(query("settle_jobs"), _columns(settlements))
        await connection.execute(b"COMMIT")


def _columns(settlements: Sequence[Settlement]) -> dict[str, object]:
    return {
        "ids": array_literal(s.job.id for s in settlements),
        "statuses": array_literal(s.status for s in settlements),
        "events": array_literal(s.event for s in settlements),
        "attempt_nos": array_literal(s.attempt_no for s in settlements),
        "retries": array_literal(s.retries for s in settlements),
        "delays": array_literal(s.delay_seconds for s in settlements),
        "providers": array_literal(s.provider for s in settlements),
        "message_ids": array_literal(s.message_id for s in settlements),
        "errors": array_literal(s.error for s in settlements),
        "turns": array_literal(s.has_turn for s in settlements),
    }
