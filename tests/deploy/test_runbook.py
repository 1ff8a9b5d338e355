"""The runbook's SQL can be typed as it stands."""

import re

import psycopg
import pytest

from tests.deploy.questions import ROOT
from tests.integration.rows import Connection

TEXT = (ROOT / "docs" / "runbook.md").read_text()
FENCED = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
INDENTED = re.findall(r"(?:^    SELECT.*\n(?:    .*\n)*)", TEXT, re.MULTILINE)
# "no job has this job_id": of the names that stand for somebody's own.
NO_SUCH_JOB = "EM002"


@pytest.mark.parametrize("block", [*FENCED, *INDENTED], ids=lambda block: block.strip().splitlines()[0][:60])
def test_a_statement_of_the_runbook_runs(db: Connection, block: str) -> None:
    """Tables, columns and functions are called what the runbook calls them."""
    try:
        db.execute(block.encode())
    except psycopg.Error as error:
        if error.sqlstate != NO_SUCH_JOB:
            raise
