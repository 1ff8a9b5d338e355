"""The settings that the stateful tests give their workers, and by which the oracle judges."""

BATCH_SIZE = 5
RETRY_SECONDS = 60
DOUBT_SECONDS = 120
MAX_RETRIES = 2
