"""The dashboard for whoever asks what became of the mails: everything from Postgres, as the role email_reader.

The statements are files in deploy/grafana/queries, with Grafana's macros; sql/ops/readonly_role.sql grants what they
read.
"""

from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard

from lab.dashboard_parts import bars, figures, page, rows, with_section

QUERIES = Path(__file__).parent.parent / "deploy" / "grafana" / "queries"


def business() -> Dashboard:
    """Mails by type, ends, dead letters, reputation, campaigns, speed."""
    dashboard = page(
        "email-business",
        "Email: what became of the mails",
        "Counted in Postgres, so it knows everything that is still in its tables. Sent is what a provider took.",
        since="now-24h",
        # Each refresh reads the whole range.
        refresh="5m",
    )
    _today(dashboard)
    _trouble(dashboard)
    _work(dashboard)
    return dashboard


def _today(dashboard: Dashboard) -> None:
    panels = [
        figures("Since midnight UTC", _sql("today"), "Events since midnight UTC, whatever the range above says."),
        bars("Sent, by type", _sql("mails_by_type"), "Mails that a provider took."),
        bars("Ends of jobs", _sql("ends"), "A job that is requeued may come to more than one end."),
    ]
    with_section(dashboard, "Mails", panels)


def _trouble(dashboard: Dashboard) -> None:
    panels = [
        rows(
            "Dead letters, by cause",
            _sql("dead_by_cause"),
            "Jobs that are dead now, and were given up in this range. Addresses and numbers are left out of the cause.",
            width=12,
        ),
        bars(
            "Bounces, complaints, unsubscriptions",
            _sql("bounces_and_complaints"),
            "As providers and recipients tell, when they tell it: often hours after the mail.",
        ),
        rows(
            "Reputation, by provider",
            _sql("reputation"),
            "Keep bounces under 5 % and complaints under 0.1 %.",
            {"Bounce rate": "percentunit", "Complaint rate": "percentunit"},
        ),
    ]
    with_section(dashboard, "Trouble", panels)


def _work(dashboard: Dashboard) -> None:
    panels = [
        rows(
            "Campaigns", _sql("campaigns"), "Those with jobs of this range, each as a whole.", {"Done": "percentunit"}
        ),
        rows(
            "Slowest types",
            _sql("slowest_types"),
            "From the moment a mail was due until a provider had it, retries and limits included.",
            {"Half within": "s", "95 % within": "s", "Slowest": "s"},
            width=12,
        ),
        rows(
            "Providers",
            _sql("providers"),
            "Attempts of the journal, and from the hand-over to the answer.",
            {"Accepted": "percentunit", "95 % within": "s"},
            width=12,
        ),
    ]
    with_section(dashboard, "Campaigns and speed", panels)


def _sql(name: str) -> str:
    return (QUERIES / f"{name}.sql").read_text().rstrip()
