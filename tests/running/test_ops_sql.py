"""The SQL files for those on call: each statement runs, and none of them changes anything."""

from pathlib import Path

import pytest

from tests.integration.rows import Connection, insert_job, insert_jobs, rows
from worker.db import SQL_FOLDER

FILES = sorted(file for file in (SQL_FOLDER / "ops").glob("*.sql") if file.name != "readonly_role.sql")


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_file_runs_and_leaves_everything_as_it_was(db: Connection, file: Path) -> None:
    """With jobs of several ends, and the very job that the examples name."""
    insert_jobs(db, 20)
    db.execute("UPDATE email_jobs SET status = 'dead', error_message = '550 no ann@example.com' WHERE seq % 3 = 0")
    insert_job(db, "order-17-paid")
    before = rows(db, "SELECT j::text FROM email_jobs AS j ORDER BY seq")
    text = file.read_text()
    assert text.startswith("-- ")
    assert f"psql … -f sql/ops/{file.name}" in text
    db.execute(text.encode())
    assert rows(db, "SELECT j::text FROM email_jobs AS j ORDER BY seq") == before
    assert rows(db, "SELECT 1 FROM email_pauses") == []
