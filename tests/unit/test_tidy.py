"""The house rules that no linter knows: sizes, homes, documents, SQL."""

import ast
import re
from enum import StrEnum
from pathlib import Path

import pytest

from worker import job
from worker.job import AttemptState, Category, Event, Guarantee, Priority, Queue, Status, SuppressionReason

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("worker", "kafka_ingest", "redis_ingest")
MODULES = sorted(module for package in PACKAGES for module in (ROOT / package).rglob("*.py"))
QUERIES = sorted((ROOT / "sql" / "queries").glob("*.sql"))
MIGRATIONS = sorted((ROOT / "sql" / "migrations").glob("*.sql"))
API = sorted((ROOT / "sql" / "api").glob("*.sql"))

# A ratchet, not a wall: what is larger today may shrink and may not grow.
MOST_LINES = 300
LARGER: dict[str, int] = {}
MOST_FUNCTION_LINES = 45
# psycopg does not cache the parsing of longer statements.
MOST_QUERY_BYTES = 4096


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_a_module_is_one_idea_of_readable_size(module: Path) -> None:
    """Every module fits its limit and begins by saying its purpose."""
    text = module.read_text()
    assert len(text.splitlines()) <= LARGER.get(_name(module), MOST_LINES)
    assert ast.get_docstring(ast.parse(text)), "a module docstring"


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_functions_can_be_seen_whole(module: Path) -> None:
    """No function is longer than a screen."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MOST_FUNCTION_LINES, node.name


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_our_own_modules_are_imported_at_the_top(module: Path) -> None:
    """An import inside a function hides a circle; only the command line, which must start fast, may do it."""
    if module.name.startswith("cli"):
        return
    tree = ast.parse(module.read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        for node in ast.walk(function):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in PACKAGES for name in names), f"{function.name} imports {names}"


def test_each_query_is_used_by_one_module() -> None:
    """A statement has one owner, and none is forgotten."""
    users: dict[str, list[str]] = {query.stem: [] for query in QUERIES}
    for module in MODULES:
        for name in re.findall(r'(?:query|_fetch)\("(\w+)"', module.read_text()):
            users[name].append(_name(module))
    assert {name: modules for name, modules in users.items() if len(set(modules)) != 1} == {}


@pytest.mark.parametrize("query", QUERIES, ids=_name)
def test_a_query_says_what_it_does(query: Path) -> None:
    """Its first line carries its name into pg_stat_activity, and it is short enough to be cached."""
    text = query.read_text()
    assert text.startswith(f"-- {query.stem}: ")
    assert len(text.encode()) < MOST_QUERY_BYTES


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_there_is_no_sql_in_python(module: Path) -> None:
    """Statements live in sql/; only transaction control and LISTEN are said in place."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            assert not re.match(
                r"\s*(SELECT (?!1$)|INSERT INTO|UPDATE \w+ |DELETE FROM|CREATE |ALTER |WITH \w+ AS)", text
            )


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_the_environment_is_read_in_one_place(module: Path) -> None:
    """Settings come from settings_loading.py, so that they are documented and checked."""
    if module.name != "settings_loading.py":
        assert not re.search(r"os\.(environ|getenv)", module.read_text())


BANNED = {
    r"\bdatetime\.now\(": "the database's clock: clock_timestamp()",
    r"\bprint\(": "structlog (only the command line prints)",
    r"\btime\.sleep\(": "an event, or asyncio.sleep",
    r"EmailMessage\b(?! takes)": "worker.compose",
    r"\bgetfqdn\(": "socket.gethostname: that one asks the network",
}


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_banned_calls_have_replacements(module: Path) -> None:
    """What has cost somebody a night is not called again."""
    if module.name.startswith("cli") or module.name == "workshop.py":
        return
    for pattern, instead in BANNED.items():
        assert not re.search(pattern, module.read_text()), f"{pattern}: use {instead}"


def test_every_module_is_in_architecture() -> None:
    """The map shows the whole house."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    missing = [
        _name(module)
        for module in MODULES
        if module.name not in ("__init__.py", "__main__.py")
        and f"`{_name(module).removeprefix('worker/')}`" not in text
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("enum", "name"),
    [
        (Priority, "email_priority"),
        (Status, "email_status"),
        (Queue, "email_queue"),
        (Guarantee, "email_guarantee"),
        (AttemptState, "email_attempt_state"),
        (Event, "email_event"),
        (Category, "email_category"),
        (SuppressionReason, "email_suppression_reason"),
    ],
)
def test_closed_lists_are_the_same_in_sql_and_python(enum: type[StrEnum], name: str) -> None:
    """Each enum has the same values in the same order."""
    text = "".join(file.read_text() for file in MIGRATIONS)
    match = re.search(rf"CREATE TYPE {name} AS ENUM \((.*?)\);", text, re.DOTALL)
    assert match is not None
    without_comments = re.sub(r"--.*", "", match.group(1))
    assert re.findall(r"'(\w+)'", without_comments) == [str(value) for value in enum]


def test_the_job_has_the_columns_of_the_claim_in_its_order() -> None:
    """A row of claim_jobs.sql becomes a Job by position."""
    text = (ROOT / "sql" / "queries" / "claim_jobs.sql").read_text()
    columns = text[text.index("SELECT") : text.index("FROM\n    unnest")]
    columns = re.sub(r"\n    \(\n.*?\n    \) AS", "\n    AS", columns, flags=re.DOTALL)
    names = re.findall(r"(?:job\.(\w+)(?:::\w+)?|AS (\w+)),?\n", columns)
    assert [alias or column for column, alias in names] == list(job.Job.__struct_fields__)


def test_every_sql_object_is_commented() -> None:
    """\\d+ and \\df+ are the operator's manual."""
    text = "".join(file.read_text() for file in (*MIGRATIONS, *API))
    objects = [
        *(("TABLE", name) for name in re.findall(r"CREATE TABLE (\w+)", text)),
        *(("VIEW", name) for name in re.findall(r"CREATE VIEW (\w+)", text)),
        *(("FUNCTION", name) for name in re.findall(r"CREATE OR REPLACE FUNCTION (\w+)", text)),
    ]
    assert objects
    assert [entry for entry in objects if not re.search(rf"COMMENT ON {entry[0]} {entry[1]}\b", text)] == []


def test_nothing_names_a_registry_or_a_machine() -> None:
    """The project can be built anywhere: no host of a package index, no absolute home of somebody."""
    for path in [*ROOT.glob("*"), *(ROOT / "requirements").glob("*"), *MODULES]:
        if path.is_file():
            text = path.read_text(errors="replace")
            assert not re.search(r"--(extra-)?index-url|file:///|/root/|/home/\w", text), path
