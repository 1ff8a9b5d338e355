"""How fast one worker is with a part of a core: `python -m lab.quota [--millicores 300] [--mails 2000]`.

The quota is the kernel's (cgroup, 100 ms periods), as Kubernetes sets it for a CPU limit, and holds for the worker
alone. Postgres and the sink have the rest of the machine. Linux, and root, who may make a control group.
"""

import argparse
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.bench.measure import start_seconds
from lab.bench.meters import machine
from lab.bench.scene import PROCRASTINATE, UVLOOP, Scene, drain, scene

PERIOD_MICROSECONDS = 100_000
NAME = "email-worker-quota"
V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup")


@contextmanager
def quota(millicores: int) -> Iterator[Path]:
    """A control group with so much of a core; whoever writes its process id into the file is in it."""
    microseconds = millicores * PERIOD_MICROSECONDS // 1000
    group = (V1 if V1.is_dir() else V2) / NAME
    group.mkdir(exist_ok=True)
    try:
        if V1.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
            (group / "cpu.cfs_quota_us").write_text(str(microseconds))
        else:
            (group / "cpu.max").write_text(f"{microseconds} {PERIOD_MICROSECONDS}")
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def within(group: Path, command: tuple[str, ...]) -> tuple[str, ...]:
    """The command, in the group from its first instruction on."""
    return ("sh", "-c", f'echo $$ > {group}; exec "$@"', "sh", *command)


def describe(where: Scene, command: tuple[str, ...], mails: int, runs: int) -> str:
    """A line of the table."""
    starts, rates, cores, megabytes = [], [], [], []
    for _ in range(runs):
        starts += start_seconds(where, 1, command)
        where.fresh_database()
        where.fill(mails)
        where.settle_down()
        run = drain(where, command)
        rates.append(run.rate)
        cores.append(run.worker_cpu_seconds / run.seconds)
        megabytes.append(run.peak_megabytes)
    return (
        f"{statistics.median(rates):,.0f} mails a second ({min(rates):,.0f} to {max(rates):,.0f}), "
        f"{statistics.median(cores):.2f} cores used, {max(megabytes):.0f} MB; "
        f"first mail {statistics.median(starts):.1f} s after the start"
    )


def main() -> None:
    """Measure both worker commands and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m lab.quota", description=main.__doc__)
    parser.add_argument("--millicores", type=int, default=300)
    parser.add_argument("--mails", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    print(f"{machine()}; {given.millicores} m; {given.runs} runs of {given.mails} mails")
    with scene() as where, quota(given.millicores) as group:
        # As deployed: figures are kept and served.
        where.environment["METRICS_PORT"] = "9464"
        for name, command in (("procrastinate worker", PROCRASTINATE), ("email-worker worker", UVLOOP)):
            print(f"{name:21} {describe(where, within(group, command), given.mails, given.runs)}", flush=True)


if __name__ == "__main__":
    main()
