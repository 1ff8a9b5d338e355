"""Settings that must end in a sentence, not in a traceback."""

import pytest

from worker.errors import SettingsError
from worker.settings_loading import load_settings


@pytest.mark.parametrize("url", ["https://[", "https://[::1/u", "mailto://[x"])
def test_a_url_that_cannot_be_split_is_a_settings_error(url: str) -> None:
    """urlsplit raises ValueError for a broken host; the operator gets the variable and its value instead."""
    with pytest.raises(SettingsError, match="EMAIL_UNSUBSCRIBE_URL"):
        load_settings({"EMAIL_UNSUBSCRIBE_URL": url})
