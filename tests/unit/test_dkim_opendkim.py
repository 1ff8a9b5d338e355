"""A second judge of our DKIM signatures: OpenDKIM, offline, where it is installed (Debian: opendkim)."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.providers.mails import make_mail
from tests.unit.test_dkim import COMPOSERS, KEYS
from worker.dkim import public_record
from worker.job import Options

OPENDKIM = shutil.which("opendkim", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(OPENDKIM is None, reason="opendkim is not installed")

SUCCEEDED = "key) succeeded"

TEXTS = {
    "plain": "Hello Ann,\n\nsee you.\n",
    "blanks": "  two  spaces \t and a tab\t\n trailing   \n\n\n\n",
    "umlauts": "Grüße aus Köln 予約 🎉\n",
    "long lines": "x" * 5000 + "\n" + "y " * 3000,
    "dots": ".\n..\n.hidden\n",
    "empty": "",
}


def judged(folder: Path, kind: str, content: bytes) -> str:
    """What OpenDKIM says of a message, with the key as the DNS would have it."""
    keys, settings, message = folder / "keys", folder / "opendkim.conf", folder / "message.eml"
    keys.write_text(f"mail._domainkey.example.org {public_record(KEYS[kind])}\n")
    settings.write_text(f"Mode v\nTestPublicKeys {keys}\nBackground no\nRequireSafeKeys no\n")
    message.write_bytes(content)
    assert OPENDKIM is not None
    command = [OPENDKIM, "-x", str(settings), "-v", "-v", "-t", str(message)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("text", TEXTS)
def test_opendkim_verifies_what_we_sign(tmp_path: Path, kind: str, text: str) -> None:
    """Both algorithms, whatever the text; and not what was changed on the way."""
    mail = make_mail(1, subject="Grüße, " * 20, text=TEXTS[text], options=Options(cc=("Bob <bob@example.com>",)))
    mail.can_opt_out = True
    content = COMPOSERS[kind].compose(mail, eight_bit=True).content
    said = judged(tmp_path, kind, content)
    assert SUCCEEDED in said, said
    changed = judged(tmp_path, kind, content.replace(b"example.org/out/", b"example.net/out/", 1))
    assert SUCCEEDED not in changed, changed
