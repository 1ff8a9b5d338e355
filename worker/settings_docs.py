"""The settings as documents: `.env.example` and `docs/configuration.md` are generated here and checked by a test."""

import msgspec

from worker.settings import DOCS, Secret, Settings, allowed

_COMPUTED = {"worker_name": ""}


def _rows() -> list[tuple[str, str, str, str]]:
    """(variable, default, allowed, meaning) of every setting."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = _COMPUTED.get(field.name, field.default)
        text = "" if isinstance(default, Secret) else f"{default:g}" if isinstance(default, float) else str(default)
        rows.append((field.name.upper(), text, allowed(field.type), DOCS[field.name]))
    return rows


def env_example() -> str:
    """Every variable with its default, commented out."""
    lines = ["# Every setting with its default. Generated: email-worker config --format env > .env.example"]
    for variable, default, may_be, meaning in _rows():
        lines += ["", f"# {meaning}", f"# Must be {may_be}.", f"#{variable}={default}"]
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """The table of all settings."""
    lines = [
        "# Configuration",
        "",
        "Environment variables, or the same names in a `.env` file of the working folder; the environment wins.",
        "Generated: `email-worker config --format markdown > docs/configuration.md`.",
        "",
        "| variable | default | allowed | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{variable}` | {f'`{default}`' if default else ''} | {may_be} | {meaning} |"
        for variable, default, may_be, meaning in _rows()
    ]
    return "\n".join(lines) + "\n"
