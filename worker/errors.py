"""Every error that this package raises on purpose.

    EmailWorkerError
    ├── SettingsError        the environment says something impossible
    ├── DatabaseError
    │   ├── DatabaseUnreachable   no connection, or not enough of them
    │   ├── PoolerInBetween       the connection does not keep its session
    │   └── SchemaMismatch        not migrated, or migrated by a newer version
    ├── BadMessage           a message that cannot become a job; it is kept as a reject
    ├── NoSuchReject         no reject has this number
    ├── BadSuppression       an entry that cannot be in the list of suppressions
    ├── ClaimLost            the claiming transaction is gone, and its locks with it
    ├── JournalUnavailable   the intent could not be written, so nothing may be sent
    ├── BucketsLost          Redis is away, or has forgotten the token buckets that it kept
    ├── TemplateError        unknown, broken, or not satisfied by the job's data
    ├── ComposeError         no correct message can be made of this job
    ├── KafkaUnusable        Kafka does not answer, or does not know the topic
    ├── PartitionsMissing    the settings name partitions that the topic does not have
    ├── ProviderUnreachable  no connection to a provider could be opened
    └── AnswerLost           a request was written to a provider and no answer came

What happens to a mail in the world is never an exception but a value: see `worker.job.Outcome`.
"""


class EmailWorkerError(Exception):
    """The base: its text is written for the person who has to act on it."""


class SettingsError(EmailWorkerError):
    """A setting is wrong. The text names the variable, what was given and what is allowed."""


class DatabaseError(EmailWorkerError):
    """Postgres cannot be used as it is."""


class DatabaseUnreachable(DatabaseError):
    """No connection to Postgres could be had in time."""


class PoolerInBetween(DatabaseError):
    """A pooler stands between us and Postgres: settings, LISTEN and locks of a session would be another client's."""


class SchemaMismatch(DatabaseError):
    """The schema in the database is not the one that this program needs."""


class BadMessage(EmailWorkerError):
    """A message cannot become a job. The text begins with the path of the field."""


class NoSuchReject(EmailWorkerError):
    """There is no reject of this number: it was put back, or never there."""


class BadSuppression(EmailWorkerError):
    """An entry cannot be in the list of suppressions. Names the field, and for a list each line."""


class ClaimLost(EmailWorkerError):
    """The connection that held the claim is gone. Another worker may have the jobs already."""


class BucketsLost(EmailWorkerError):
    """Redis does not answer; or it does not know the epoch of the token buckets any more: `has_forgotten`."""

    def __init__(self, words: str, *, has_forgotten: bool = False) -> None:
        super().__init__(words)
        self.has_forgotten = has_forgotten


class JournalUnavailable(EmailWorkerError):
    """Intents could not be journaled: their mails must not be handed over."""


class TemplateError(EmailWorkerError):
    """A template is missing or broken, or the data do not satisfy it. Names template, line and variable."""


class ComposeError(EmailWorkerError):
    """The job cannot become a correct message. Names the field."""


class ProviderUnreachable(EmailWorkerError):
    """No connection to the provider could be opened, or it would not let us in."""


class KafkaUnusable(EmailWorkerError):
    """Kafka does not answer as it should."""


class PartitionsMissing(EmailWorkerError):
    """The settings name partitions that the topic does not have."""


class AnswerLost(EmailWorkerError):
    """A request was written, and the answer never came: the provider may have taken it."""
