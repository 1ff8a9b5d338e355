"""Writes Grafana's dashboards: `python -m lab.dashboards` makes deploy/grafana/dashboards/*.json.

With `--check` it writes nothing, and ends with status 1 where a committed file is not what it would write. What they
show stands in lab/dashboard_operations.py (Prometheus) and lab/dashboard_business.py (Postgres, by the statements in
deploy/grafana/queries); how it looks in lab/dashboard_parts.py.

No Grafana has rendered these dashboards yet. Every query of them is run by a real Prometheus and a real Postgres in
tests/deploy/test_grafana.py, and the JSON is made by Grafana's own builders; how it looks nobody has judged.

A development tool: it needs grafana-foundation-sdk, from the dev extra.
"""

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from lab.dashboard_business import business
from lab.dashboard_operations import operations

FOLDER = Path(__file__).parent.parent / "deploy" / "grafana" / "dashboards"


def rendered() -> dict[Path, str]:
    """Each file with the text that it should have."""
    return {FOLDER / "operations.json": _text(operations()), FOLDER / "business.json": _text(business())}


def stale(files: dict[Path, str]) -> list[Path]:
    """Those that are not on disk as they should be."""
    return [path for path, text in files.items() if not path.exists() or path.read_text() != text]


def _text(dashboard: Dashboard) -> str:
    built = dashboard.build()
    # The builders leave the numbers out, and Grafana links to a panel by its number.
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False).encode(built) + "\n"


def main() -> None:
    """Write the dashboards, or say which are not up to date."""
    parser = argparse.ArgumentParser(prog="python -m lab.dashboards", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a file is out of date")
    arguments = parser.parse_args()
    files = rendered()
    outdated = stale(files)
    if arguments.check:
        for path in outdated:
            print(f"{path} is not what python -m lab.dashboards writes", file=sys.stderr)
        sys.exit(1 if outdated else 0)
    for path in outdated:
        path.write_text(files[path])
        print(f"{path} written")


if __name__ == "__main__":
    main()
