"""The command line, `email-worker`: a thin face over the functions that do the work.

Arguments and settings that say nothing possible: exit status 2. What could not be done: one line on standard error, and
status 1. Never a traceback.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psycopg

from worker import cli_intake, cli_jobs, cli_queue, cli_running, cli_suppressions
from worker.cli_output import print_json
from worker.db import connect_once, failed_statement
from worker.errors import EmailWorkerError, SettingsError
from worker.settings import Settings, shown
from worker.settings_loading import load_settings


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["worker"]:
        _run_worker(given[1:])
        return
    parsed = _parser().parse_args(given)
    try:
        parsed.run(parsed, load_settings())
    except SettingsError as error:
        sys.exit(_complain(f"wrong settings\n{error}", 2))
    except EmailWorkerError as error:
        sys.exit(_complain(str(error), 1))
    except psycopg.Error as error:
        sys.exit(_complain(str(failed_statement(error)), 1))
    except BrokenPipeError:
        sys.exit(1)
    except (KeyboardInterrupt, EOFError):
        sys.exit(130)
    except UnicodeError:
        sys.exit(_complain("an argument is not UTF-8", 2))
    except OSError as error:
        sys.exit(_complain(f"cannot read or write: {error.strerror}", 1))


def _complain(text: str, status: int) -> int:
    print(f"email-worker: {text}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="email-worker", description="Turns rows of email_jobs into delivered mail.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('email-worker')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("worker", help="run a worker on uvloop; takes the options of procrastinate's worker command")
    migrate = commands.add_parser("migrate", help="bring the database to this version's schema; safe to repeat")
    migrate.set_defaults(run=_migrate)
    config = commands.add_parser("config", help="show the settings in force, secrets masked")
    config.add_argument(
        "--format",
        choices=["text", "json", "env", "markdown"],
        default="text",
        help="env and markdown write .env.example and docs/configuration.md",
    )
    config.set_defaults(run=_config)
    _template_parser(commands.add_parser("template", help="check, look at and store templates"))
    cli_intake.add_commands(commands)
    cli_jobs.add_commands(commands)
    cli_queue.add_commands(commands)
    cli_running.add_commands(commands)
    cli_suppressions.add_commands(commands)
    _domain_parser(commands.add_parser("domain", help="what the DNS should say of a sender's domain"))
    return parser


def _domain_parser(parser: argparse.ArgumentParser) -> None:
    check = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="the SPF, DKIM, DMARC and MX records that should be there, and those that are"
    )
    check.add_argument("domain", metavar="DOMAIN")
    check.add_argument(
        "--resolver", metavar="HOST", help="ask this name server, like 1.1.1.1; without it nobody is asked"
    )
    check.add_argument("--json", action="store_true", help="one JSON object a line")
    check.set_defaults(run=_check_domain)


def _template_parser(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    lint = commands.add_parser("lint", help="compile and render every shipped template with its sample data")
    lint.add_argument("names", nargs="*", metavar="NAME", help="only these")
    lint.set_defaults(run=_lint)
    preview = commands.add_parser("preview", help="render one template")
    preview.add_argument("name", metavar="NAME")
    preview.add_argument(
        "--data", metavar="FILE", type=Path, help="JSON like the template's sample.json, which is used otherwise"
    )
    preview.add_argument(
        "--stored", action="store_true", help="as a worker would choose it now: rows of email_templates win over files"
    )
    preview.add_argument("--locale", metavar="TAG", help="with --stored: for a recipient of this language, like pt-BR")
    preview.add_argument("--open", action="store_true", help="show the HTML in the browser")
    preview.add_argument(
        "--png", metavar="FOLDER", type=Path, help="pictures at desktop and phone width, light and dark (Chromium)"
    )
    preview.set_defaults(run=_preview)
    sync = commands.add_parser(
        "sync", help="store the shipped templates in email_templates, a new version where they changed"
    )
    sync.add_argument(
        "--sendgrid",
        action="store_true",
        help="make or mend the dynamic template at SendGrid that SENDGRID_TEMPLATE_ID names, instead",
    )
    sync.set_defaults(run=_sync)


def _run_worker(options: list[str]) -> None:
    """procrastinate's own worker command, on uvloop: its loop must be chosen before it starts."""
    import uvloop
    from procrastinate.cli import cli

    try:
        load_settings()
    except SettingsError as error:
        sys.exit(_complain(f"wrong settings\n{error}", 2))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(cli(["--app", "worker.app.app", "worker", *options]))


def _migrate(_: argparse.Namespace, settings: Settings) -> None:
    from worker.migrate import migrate

    with connect_once(settings, "email-worker migrate") as connection:
        applied = migrate(connection)
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")


def _config(parsed: argparse.Namespace, settings: Settings) -> None:
    from worker import settings_docs

    match parsed.format:
        case "json":
            print(json.dumps(shown(settings), indent=2))
        case "env":
            print(settings_docs.env_example(), end="")
        case "markdown":
            print(settings_docs.markdown(), end="")
        case _:
            for name, value in shown(settings).items():
                print(f"{name:32}{value}")


def _check_domain(parsed: argparse.Namespace, settings: Settings) -> None:
    from worker.domain_check import check_domain, resolver

    domain = parsed.domain.lower().rstrip(".")
    findings = check_domain(domain, settings, resolver(parsed.resolver) if parsed.resolver else None)
    if parsed.json:
        print_json(finding._asdict() for finding in findings)
    else:
        marks = {True: "ok", False: "WRONG", None: "should be"}
        for finding in findings:
            print(f"{marks[finding.is_right]:10}{finding.what}: {finding.name} {finding.kind}")
            if finding.is_right is not True:
                print(f"          should be like  {finding.example}")
            for text in finding.found:
                print(f"          is              {text}")
    if any(finding.is_right is False for finding in findings):
        sys.exit(1)


def _lint(parsed: argparse.Namespace, settings: Settings) -> None:
    from worker import workshop

    failed = 0
    for name in parsed.names or workshop.names():
        problem = workshop.lint(name, settings)
        failed += problem is not None
        print(f"{'FAIL' if problem else 'ok  '}  {name}" + (f"  {problem}" if problem else ""))
    if failed:
        sys.exit(1)


def _preview(parsed: argparse.Namespace, settings: Settings) -> None:
    from worker import pictures, workshop

    if parsed.stored:
        content = asyncio.run(workshop.preview_stored(parsed.name, parsed.locale, settings, parsed.data))
    elif parsed.locale:
        raise EmailWorkerError("--locale chooses among stored templates: add --stored")
    else:
        content = workshop.preview(parsed.name, settings, parsed.data)
    print(f"Subject: {content.subject}\n\n{content.text}\n")
    if parsed.png:
        for picture in pictures.take_pictures(parsed.name, content.html, parsed.png):
            print(picture)
    elif parsed.open:
        print(f"HTML in {workshop.show(parsed.name, content)}")
    else:
        print(content.html)


def _sync(parsed: argparse.Namespace, settings: Settings) -> None:
    from worker import sendgrid_template, workshop

    if parsed.sendgrid:
        number, what = sendgrid_template.sync(settings)
        print(f"{what:10}SENDGRID_TEMPLATE_ID={number}")
        return
    with connect_once(settings, "email-worker template sync") as connection:
        for name, what in workshop.sync(connection):
            print(f"{what:10}{name}")


if __name__ == "__main__":
    main()
