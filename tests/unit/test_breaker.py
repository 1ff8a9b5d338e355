"""The circuit breaker, with a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from worker.providers.breaker import Breaker, BreakerState


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_breaker(failures: int = 3, seconds: float = 30.0) -> tuple[Breaker, Clock]:
    """A breaker and its clock."""
    clock = Clock()
    return Breaker("smtp", failures, seconds, clock, lambda: 12 * 3600 + 60.0), clock


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    """A success in between begins the count anew; open, nothing goes, and the words say since when."""
    breaker, _ = make_breaker()
    for _ in range(5):
        breaker.failed("no")
        breaker.failed("no")
        breaker.succeeded()
    assert breaker.allowance(50) == 50
    for _ in range(3):
        breaker.failed("no")
    assert (breaker.state, breaker.allowance(50)) == (BreakerState.OPEN, 0)
    assert breaker.words == "breaker open since 12:01 UTC"


def test_exactly_one_probe_goes_when_it_is_half_open() -> None:
    """However many ask, one mail goes until its answer is there; a success closes, a failure opens again."""
    breaker, clock = make_breaker(1)
    breaker.failed("no")
    clock.now += 29.9
    assert breaker.allowance(10) == 0
    clock.now += 0.1
    assert [breaker.allowance(10) for _ in range(3)] == [1, 0, 0]
    breaker.failed("still not", is_probe=True)
    breaker.probe_ended()
    assert breaker.allowance(10) == 0
    clock.now += 30
    assert breaker.allowance(10) == 1
    breaker.succeeded(is_probe=True)
    breaker.probe_ended()
    assert (breaker.state, breaker.allowance(10)) == (BreakerState.CLOSED, 10)


def test_only_the_probe_decides() -> None:
    """Answers of what went out before neither close it, nor open it again, nor let a second probe through."""
    breaker, clock = make_breaker(1)
    breaker.failed("no")
    clock.now += 30
    assert breaker.allowance(10) == 1
    breaker.succeeded()
    breaker.failed("late")
    assert (breaker.state, breaker.allowance(10)) == (BreakerState.HALF_OPEN, 0)


def test_a_probe_that_comes_back_without_an_answer_leaves_room_for_another() -> None:
    """A batch whose time was up tells nothing about the provider."""
    breaker, clock = make_breaker(1)
    breaker.failed("no")
    clock.now += 30
    assert breaker.allowance(1) == 1
    breaker.probe_ended()
    assert breaker.allowance(1) == 1


def test_a_provider_that_says_it_is_out_is_believed_at_once() -> None:
    """No counting, and for as long as it says."""
    breaker, clock = make_breaker(1000)
    breaker.is_out("quota", 120.0)
    clock.now += 119
    assert (breaker.state, breaker.seconds_left) == (BreakerState.OPEN, 1.0)
    clock.now += 1
    assert breaker.state is BreakerState.HALF_OPEN


def test_late_answers_do_not_close_it() -> None:
    """What went out before it opened may succeed; only the probe decides."""
    breaker, _ = make_breaker(1)
    breaker.failed("no")
    breaker.succeeded()
    assert breaker.state is BreakerState.OPEN


def test_a_breaker_of_no_failures_never_opens() -> None:
    """Whatever the provider does."""
    breaker, _ = make_breaker(0)
    for _ in range(100):
        breaker.failed("no")
        breaker.is_out("out", 60.0)
    assert breaker.allowance(5) == 5


ACTS = st.lists(st.sampled_from(["ask", "good", "bad", "out", "stranger", "back", "wait"]), max_size=60)


@given(acts=ACTS)
def test_never_more_than_one_probe(acts: list[str]) -> None:
    """Whatever happens, one mail at most is on its way as a probe."""
    breaker, clock = make_breaker(2)
    is_out = False
    for act in acts:
        match act:
            case "ask":
                state = breaker.state
                allowed = breaker.allowance(7)
                assert allowed in {BreakerState.CLOSED: (7,), BreakerState.OPEN: (0,)}.get(state, (0, 1))
                if state is BreakerState.HALF_OPEN:
                    assert allowed == (0 if is_out else 1)
                    is_out = True
            case "wait":
                clock.now += 30
            case "stranger":
                breaker.succeeded()
                breaker.failed("no")
            case "out":
                breaker.is_out("out", 0.0)
            case _ if is_out:
                if act == "good":
                    breaker.succeeded(is_probe=True)
                elif act == "bad":
                    breaker.failed("no", is_probe=True)
                breaker.probe_ended()
                is_out = False
            case _:
                pass
