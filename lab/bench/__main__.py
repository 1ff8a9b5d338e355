"""`make bench`: measure everything, print the table. `--quick` is a look, `--only WORD` a part."""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.bench import measure, roads, stages, ways_out
from lab.bench.measure import median, percentile
from lab.bench.meters import machine
from lab.bench.scene import PROCRASTINATE, UVLOOP, Run, Scene, scene
from lab.sink_process import Sink


@dataclass(frozen=True)
class Line:
    """A line of the table: what, the figure, the target, and whether it is met (None: only stated)."""

    what: str
    figure: str
    target: str
    is_met: bool | None


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    runs: int
    drain: int
    snapshot: int
    pending: int
    sent: int
    backlog: int
    latencies: int
    insert_seconds: int
    messages: int
    slow: int


FULL = Sizes(5, 20_000, 300_000, 1_000_000, 2_000_000, 200_000, 200, 5, 60_000, 1_000)
QUICK = Sizes(1, 10_000, 50_000, 100_000, 200_000, 50_000, 60, 2, 30_000, 500)


def _least(what: str, value: float, target: float, form: str = "{:,.0f}") -> Line:
    return Line(what, form.format(value), "≥ " + form.format(target), value >= target)


def _most(what: str, value: float, target: float, form: str = "{:,.0f}") -> Line:
    return Line(what, form.format(value), "≤ " + form.format(target), value <= target)


def _worker(where: Scene, sizes: Sizes) -> list[Line]:
    runs = measure.throughput(where, PROCRASTINATE, 1, sizes.drain, sizes.runs)
    return [
        _least("mails per second, one procrastinate worker", median([run.rate for run in runs]), 4500),
        _most("  worker CPU per mail, µs", median([run.microseconds(run.worker_cpu_seconds) for run in runs]), 180),
        *_beside(runs),
        _most("  resident memory at full rate, MB", max(run.peak_megabytes for run in runs), 64),
    ]


def _beside(runs: list[Run]) -> list[Line]:
    """What Postgres and the sink spend, which share the machine."""
    postgres = median([run.microseconds(run.postgres_cpu_seconds) for run in runs])
    sink = median([run.microseconds(run.sink_cpu_seconds) for run in runs])
    return [Line("  CPU of Postgres / of the sink per mail, µs", f"{postgres:.0f} / {sink:.0f}", "stated", None)]


def _uvloop(where: Scene, sizes: Sizes) -> list[Line]:
    runs = measure.throughput(where, UVLOOP, 1, sizes.drain, sizes.runs)
    rate, cpu = median([run.rate for run in runs]), median([run.microseconds(run.worker_cpu_seconds) for run in runs])
    return [
        Line("mails per second, email-worker worker (uvloop)", f"{rate:,.0f}", "stated", None),
        Line("  worker CPU per mail, µs", f"{cpu:.0f}", "stated", None),
    ]


def _two(where: Scene, sizes: Sizes) -> list[Line]:
    compared = measure.against_yardstick(where, sizes.drain, sizes.runs)
    if compared is None:
        runs = measure.throughput(where, PROCRASTINATE, 2, sizes.drain, sizes.runs)
        lines = [Line("  over the Go yardstick", "no Go here", "≥ 1.00", None)]
    else:
        runs, theirs = compared
        ratios = [run.rate / other for run, other in zip(runs, theirs, strict=True)]
        lines = [
            Line("  the Go yardstick, in turn with it", f"{median(theirs):,.0f}", "stated", None),
            _least("  two workers / the Go yardstick", median(ratios), 1.0, "{:.2f}"),
        ]
    return [_least("mails per second, two workers", median([run.rate for run in runs]), 5500), *lines]


def _snapshot(where: Scene, sizes: Sizes) -> list[Line]:
    ratio = measure.under_old_snapshot(where, sizes.snapshot)
    return [_least(f"last tenth / first tenth of {sizes.snapshot:,} under an old snapshot", ratio, 0.9, "{:.2f}")]


def _large(where: Scene, sizes: Sizes) -> list[Line]:
    large, small = measure.in_large_table(where, sizes.pending, sizes.sent, sizes.drain)
    what = f"rate with {sizes.pending:,} pending and {sizes.sent:,} sent rows / with few"
    return [_least(what, large / small, 0.9, "{:.2f}")]


def _latency(where: Scene, sizes: Sizes) -> list[Line]:
    idle = measure.idle_latencies(where, sizes.latencies)
    busy = measure.busy_latencies(where, sizes.latencies, sizes.backlog)
    what = f"  the same while {sizes.backlog:,} newsletters drain"
    return [
        _most("insert to accepted, idle, p50, ms", percentile(idle, 0.5), 5, "{:.1f}"),
        _most("insert to accepted, idle, p99, ms", percentile(idle, 0.99), 25, "{:.1f}"),
        _most(f"{what}, p50, ms", percentile(busy, 0.5), 30, "{:.1f}"),
        _most(f"{what}, p99, ms", percentile(busy, 0.99), 150, "{:.1f}"),
    ]


def _inserts(where: Scene, sizes: Sizes) -> list[Line]:
    with_trigger, without = measure.inserts_with_and_without_trigger(where, sizes.insert_seconds, sizes.runs)
    return [
        Line("single-row inserts per second, 32 connections", f"{median(with_trigger):,.0f}", "stated", None),
        _least("  the same / without the trigger", median(with_trigger) / median(without), 0.75, "{:.2f}"),
    ]


def _start(where: Scene, sizes: Sizes) -> list[Line]:
    seconds = median(measure.start_seconds(where, sizes.runs))
    return [_most("process start to first mail accepted, s", seconds, 0.8, "{:.2f}")]


def _stages(where: Scene, sizes: Sizes) -> list[Line]:
    spent = stages.stage_microseconds(where, sizes.drain)
    return [
        Line("CPU per mail by stage, one batch at a time, µs", f"{sum(spent.values()):.0f}", "stated", None),
        *(Line(f"  {stage}", f"{spent[stage]:.0f}", "", None) for stage in stages.STAGES),
    ]


def _roads_in(where: Scene, sizes: Sizes) -> list[Line]:
    kafka = roads.kafka_to_rows(where, sizes.messages, sizes.runs)
    redis = roads.redis_to_rows(where, sizes.messages, sizes.runs)
    return [
        _least("Kafka to rows, messages per second, one ingestor", median([run.rate for run in kafka]), 12_000),
        _most("  its CPU per message, µs", median([run.cpu_microseconds for run in kafka]), 70),
        _least("Redis to rows, messages per second, one ingestor", median([run.rate for run in redis]), 12_000),
        Line("  its CPU per message, µs", f"{median([run.cpu_microseconds for run in redis]):.0f}", "stated", None),
    ]


def _roads_out(where: Scene, sizes: Sizes) -> list[Line]:
    relayed = median([roads.relayed_per_second(where, 2 * sizes.messages) for _ in range(min(3, sizes.runs))])
    pairs = roads.with_and_without_news(where, sizes.drain, sizes.runs)
    ratio = median([told.rate / silent.rate for told, silent in pairs])
    return [
        _least("events to Kafka per second", relayed, 10_000),
        _least("delivery with Kafka events and Redis status / without", ratio, 0.85, "{:.2f}"),
    ]


def _roads_latency(where: Scene, sizes: Sizes) -> list[Line]:
    taken = roads.produced_to_accepted(where, sizes.latencies)
    return [
        _most("produce to Kafka to accepted, idle, p50, ms", percentile(taken, 0.5), 20, "{:.1f}"),
        Line("  p99, ms", f"{percentile(taken, 0.99):.1f}", "stated", None),
    ]


def _ways_out(where: Scene, sizes: Sizes) -> list[Line]:
    smtp = ways_out.by_slow_smtp(where, sizes.slow, sizes.runs)
    ses = ways_out.by_ses(where, sizes.drain, sizes.runs)
    small = ways_out.by_sendgrid(where, sizes.drain, sizes.runs, 50)
    large = ways_out.by_sendgrid(where, sizes.drain, sizes.runs, 500)
    slow = f"a provider that answers after {ways_out.DELAY_SECONDS * 1000:.0f} ms: mails per second,"
    return [
        _least(f"{slow} SMTP, 10 connections", median([run.rate for run in smtp]), 80),
        _least("  SES", median([run.rate for run in ses]), 2000),
        _least("  SendGrid with a template, batches of 50", median([run.rate for run in small]), 4000),
        _least("  SendGrid with a template, batches of 500", median([run.rate for run in large]), 4000),
        *(
            Line(f"    worker CPU per mail, {name}, µs", f"{_cpu(runs):.0f}", "stated", None)
            for name, runs in (("SES", ses), ("SendGrid 50", small), ("SendGrid 500", large))
        ),
        _most("  resident memory, the larger of SES and SendGrid, MB", ways_out.most_megabytes([*ses, *small]), 130),
    ]


def _cpu(runs: list[Run]) -> float:
    return median([run.microseconds(run.worker_cpu_seconds) for run in runs])


def _dkim(where: Scene, sizes: Sizes) -> list[Line]:
    ratios = ways_out.signed_over_plain(where, sizes.drain, sizes.runs)
    return [
        _least(f"rate with DKIM / without, {kind}", ratios[kind], target, "{:.2f}")
        for kind, target in (("Ed25519", 0.75), ("RSA-2048", 0.45))
    ]


Part = Callable[[Scene, Sizes], list[Line]]
PLAIN: dict[str, Part] = {
    "worker": _worker,
    "uvloop": _uvloop,
    "two": _two,
    "snapshot": _snapshot,
    "large": _large,
    "inserts": _inserts,
    "stages": _stages,
    "roads-in": _roads_in,
    "roads-out": _roads_out,
    "ways-out": _ways_out,
    "dkim": _dkim,
}
WITH_LEDGER: dict[str, Part] = {"latency": _latency, "roads-latency": _roads_latency, "start": _start}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, one run each: a look, not a claim")
    parser.add_argument("--only", nargs="+", choices=[*PLAIN, *WITH_LEDGER], default=[*PLAIN, *WITH_LEDGER])
    given = parser.parse_args()
    sizes = QUICK if given.quick else FULL
    print(f"On {machine()}; embedded Postgres 18 with its default durability; 4 KB HTML + 1 KB text.")
    print(
        f"{'One run' if sizes.runs == 1 else f'Medians of {sizes.runs} runs'} of {sizes.drain:,} mails.\n", flush=True
    )
    with scene() as where:
        for name, part in PLAIN.items():
            if name in given.only:
                _print(part(where, sizes))
    with tempfile.TemporaryDirectory() as folder, scene(Sink(ledger=Path(folder) / "ledger")) as where:
        for name, part in WITH_LEDGER.items():
            if name in given.only:
                _print(part(where, sizes))


def _print(lines: list[Line]) -> None:
    for line in lines:
        verdict = {True: "met", False: "missed", None: ""}[line.is_met]
        print(f"{line.what:66} {line.figure:>12}  {line.target:>9}  {verdict}", flush=True)


if __name__ == "__main__":
    main()
