"""Any order of events: see `tests.stateful.machine`.

Quick by default; STATEFUL_PROFILE=deep looks longer (and STATEFUL_EXAMPLES=5000 as long as you like).
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.machine import DeliveryMachine
from tests.stateful.plant import Plant
from tests.support import Database

COMMON = settings(
    deadline=None,
    # An example is a life of a small plant: seconds, and much data.
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
PROFILES = {
    # The same examples each time: the default run is a check, not a search.
    "quick": settings(
        COMMON,
        max_examples=40,
        stateful_step_count=30,
        derandomize=True,
        database=None,
        # Shrinking what was found takes minutes: that is for the deep run.
        phases=[Phase.generate],
    ),
    "deep": settings(COMMON, max_examples=int(os.environ.get("STATEFUL_EXAMPLES", "500")), stateful_step_count=50),
}


@pytest.fixture
def plant(database: Database) -> Iterator[Plant]:
    """A database with worker processes that can be crashed."""
    plant = Plant(database)
    yield plant
    plant.close()


def test_the_promises_hold_in_any_order_of_events(plant: Plant) -> None:
    """No order of crashes, lost claims, answers, requeues, cancels and time breaks a promise or leaves a job behind."""
    profile = PROFILES[os.environ.get("STATEFUL_PROFILE", "quick")]

    class Machine(DeliveryMachine):
        def __init__(self) -> None:
            super().__init__(plant)

    run_state_machine_as_test(Machine, settings=profile)
