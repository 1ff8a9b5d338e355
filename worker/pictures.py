"""A mail as people see it: pictures of its HTML by headless Chromium, at two widths, light and dark."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from worker.errors import EmailWorkerError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Width and height in pixels; a mail is longer than a window, so they are high.
SIZES = {"desktop": (800, 1400), "phone": (390, 1600)}
SECONDS = 60
# Blink's numbers for prefers-color-scheme.
SCHEMES = {"light": 1, "dark": 0}
# Without its sandbox, which root may not use: it shows nothing but our own mail, and reaches nobody.
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def take_pictures(name: str, html: str, folder: Path) -> Iterator[Path]:
    """Four PNG files. Nothing is fetched from anywhere: images that are not in the mail are missing in the picture.

    Raises EmailWorkerError when there is no Chromium, or it fails.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise EmailWorkerError(f"no Chromium is installed ({', '.join(PROGRAMS)}): --png needs one")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="email-preview-") as scratch:
        page = Path(scratch) / "mail.html"
        page.write_text(html, encoding="utf-8")
        for size, (width, height) in SIZES.items():
            for scheme, number in SCHEMES.items():
                picture = folder / f"{name}-{size}-{scheme}.png"
                _take(program, Path(scratch), page, picture, f"--window-size={width},{height}", number)
                yield picture


def _take(program: str, scratch: Path, page: Path, picture: Path, window: str, scheme: int) -> None:
    command = [
        program,
        *_QUIET,
        f"--user-data-dir={scratch / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}",
        window,
        f"--screenshot={picture.resolve()}",
        page.as_uri(),
    ]
    picture.unlink(missing_ok=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EmailWorkerError(f"{program} took no picture within {SECONDS} s") from None
    if not picture.is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EmailWorkerError(f"{program} took no picture: {last[:300]}")
