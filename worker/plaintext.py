"""A readable text part for HTML that comes without one."""

from typing import Any

# Deeper and larger than any mail; what is beyond is cut, not waited for.
LONGEST_TEXT = 200_000


def text_from_html(html: str) -> str:
    """The text of a page, its links included. Raises what the library raises; the caller holds the limits."""
    # lxml is eight megabytes that most workers never need.
    from inscriptis import get_text
    from inscriptis.css_profiles import STRICT_CSS_PROFILE
    from inscriptis.model.config import ParserConfig

    config: Any = ParserConfig(css=STRICT_CSS_PROFILE, display_links=True)
    text: str = get_text(html, config)
    return text.strip()[:LONGEST_TEXT]
