"""Files that are whole or not there, and what a person is told when the disk refuses."""

import contextlib
import errno
import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from zolite.common.errors import DiskFull, UsageError, ZoliteError
from zolite.common.paths import paths

# SQLite and safetensors report the operating system's errors as text only.
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
FULL_TEXT = ("database or disk is full", f"os error {errno.ENOSPC})")
DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
# What comes of reading a file that is not what it should be.
DAMAGE = (
    OSError, sqlite3.Error, SafetensorError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip
DENIED_TEXT = ("readonly database", "unable to open database file", f"os error {errno.EROFS})")


@contextmanager
def saving(what: str, path: Path, needed: int = 0) -> Iterator[None]:
    """What the disk or SQLite refuses inside the block becomes one ZoliteError. `needed` is in bytes."""
    try:
        yield
    except (OSError, sqlite3.DatabaseError, SafetensorError) as error:
        raise _refused(what, path, needed, error) from error


@contextmanager
def reading(what: str, path: Path) -> Iterator[None]:
    """The same for a block that only reads."""
    try:
        yield
    except DAMAGE as error:
        text = f"{type(error).__name__}: {error}" if isinstance(error, LookupError | AttributeError) else str(error)
        raise ZoliteError(
            f"cannot read {what} at {path}: {text}", "`zolite sessions list` says what is left"
        ) from error


@contextmanager
def caching(what: str) -> Iterator[None]:
    """What the disk refuses inside the block, which writes into the cache, becomes one ZoliteError."""
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in FULL else ZoliteError
        text = f"{what} cannot be kept in the cache, {paths()['cache']}: {error.strerror or error}"
        raise kind(text, "make room there, or set ZOLITE_CACHE to a folder on another disk") from error


def ensure_free(*paths: Path) -> None:
    """UsageError if a file could not be written there, or would take another's place."""
    for path in paths:
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} to write {path.name} in", "make it, or choose another")
        if path.exists():
            raise UsageError(f"{path} exists already", "choose another name for --out, or remove it")


def write_new(path: Path, data: bytes) -> None:
    """A new file that only its owner reads, on the disk when this returns."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def replace(path: Path, data: bytes) -> None:
    """The file with new content: a reader, and the next start, see the old or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # from an earlier process with this number that was killed here
    try:
        write_new(beside, data)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Puts the names in a folder on the disk; Windows does that by itself and has no call for it."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def size(folder: Path) -> int:
    """Bytes in a folder's own files, at any depth, as far as they can be seen."""
    total, folders = 0, [os.fspath(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def is_folder(path: Path) -> bool:
    """A folder itself, and no link to one."""
    return not path.is_symlink() and path.is_dir()


def remove_tree(path: Path) -> None:
    """Takes off the disk what has that name: of a link itself, of a folder all that is in it. It needs no room.

    Folders may be nested to any depth and closed to their owner, where shutil.rmtree ends. Raises OSError where
    something stays; what another process removes meanwhile is gone.
    """
    if not is_folder(path):
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    lifted = itertools.count()
    while entries := list(os.scandir(path)):
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    _lift(entry.path, path / f".{os.getpid()}-{time.time_ns()}", lifted)
                else:
                    os.unlink(entry.path)
    path.rmdir()


def _lift(folder: str, beside: Path, numbers: Iterator[int]) -> None:
    """Removes a folder, after the folders in it have been put beside it."""
    os.chmod(folder, 0o700)
    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)
            os.rename(entry.path, f"{beside}-{next(numbers)}")
        else:
            os.unlink(entry.path)
    os.rmdir(folder)


def _refused(what: str, path: Path, needed: int, error: Exception) -> ZoliteError:
    number, text = getattr(error, "errno", None), str(error)
    free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
    # SQLite names a full disk an I/O error where it could not grow its shared memory.
    io_error = "disk I/O error" in text and free < 1 << 20
    if number in FULL or any(t in text for t in FULL_TEXT) or io_error:
        numbers = f"{needed / 1e6:.1f} MB needed, " if needed else ""
        return DiskFull(
            f"disk full while saving {what}: {numbers}{free / 1e6:.1f} MB free at {path}",
            "free some space and go on with `zolite resume`, or set ZOLITE_HOME to a folder on another disk",
        )
    if number in DENIED or any(t in text for t in DENIED_TEXT):
        return ZoliteError(
            f"cannot save {what}: {path} may not be written ({text})",
            "check the folder's permissions, or set ZOLITE_HOME to a folder you can write to",
        )
    return ZoliteError(f"cannot save {what} at {path}: {text}", "`zolite doctor` checks the disk")
