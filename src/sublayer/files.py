"""Files and folders written aside and renamed into place, so that a fault leaves the old or the new, never half.

What is half done stands in a folder of its own beside its goal: made with `tempfile`, so that its name is nobody
else's, and with a lock in it, so that another process can tell what is being written from what was left by a process
that was killed. Only such folders are ever cleared away.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sublayer.errors import StorageError
from sublayer.locks import LockedError, NoLocksError, locked
from sublayer.untrusted import to_json

ASIDE = ".sublayer-"
"""How the names of our folders for what is half done begin."""
OWNER = "owner.lock"
"""The file in such a folder that the process which made it holds locked."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def replacing(path: Path, parts: Sequence[str] = ()) -> Generator[Path]:
    """A path to write to; renamed onto `path` when the block ends well, removed when it does not.

    Works for a file and for a folder, whichever the block makes. A link is followed. Of a folder that is already there
    only its parts are replaced: whatever else stands in it is the user's, and stands in the new one too. At every
    moment one whole version stands under `path`, but for the instant between two renames; whoever is killed in it
    leaves the old one aside, and the next process that writes there puts it back.

    Args:
        parts: the names that such a folder consists of, as patterns ("model*.safetensors"), besides those that the
            block writes.

    Raises:
        StorageError: the disk refused (full, read-only, no permission), or the name cannot be; what was under `path` is
            untouched.
    """
    require_name(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            with _written_through(path) as aside:
                yield aside
            return
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with working_folder(path.parent) as work:
            aside = work / "new" / path.name
            aside.parent.mkdir()
            yield aside
            _flush(aside)
            _put(aside, path, work, parts)
            _flush_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error


@contextmanager
def working_folder(parent: Path) -> Generator[Path]:
    """A new folder in `parent` for what is half done; removed after the block.

    A process that is killed leaves it behind; the next one that makes such a folder there removes it.

    Raises:
        OSError: the disk refused.
    """
    clear_leftovers(parent)
    held = ExitStack()
    work = _own_folder(parent, held)
    try:
        with held:
            try:
                yield work
            finally:
                _dissolve(work)
    finally:
        with suppress(OSError):
            (work / OWNER).unlink(missing_ok=True)
            work.rmdir()


def clear_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote into `folder` have left, and nothing else."""
    for work in folder.glob(f"{ASIDE}*"):
        # Another process may be about to remove it too.
        with suppress(LockedError, NoLocksError, OSError):
            if is_leftover(work):
                if (work / OWNER).is_file():
                    with locked(work / OWNER, create=False):
                        _dissolve(work)
                work.rmdir()


def is_leftover(path: Path) -> bool:
    """Whether `path` is a folder that `working_folder` made, in use or left."""
    if not path.name.startswith(ASIDE) or path.is_symlink() or not path.is_dir():
        return False
    return (path / OWNER).is_file() or not any(path.iterdir())


def remove_parts(folder: Path, parts: Sequence[str]) -> None:
    """Remove what `folder` consists of, as far as it can be, and the folder itself where nothing else stands in it.

    parts: names, as patterns; the first is removed first.
    """
    if folder.is_dir():
        clear_leftovers(folder)
        for part in parts:
            for path in sorted(folder.glob(part)):
                _remove(path)
        with suppress(OSError):  # what is left is the user's
            folder.rmdir()


def cache_folder() -> Path:
    """Return the folder of what was fetched or measured.

    It is `$SUBLAYER_CACHE`, else `$XDG_CACHE_HOME/sublayer`, else `~/.cache/sublayer`.

    Raises:
        StorageError: it begins with the home of somebody who has none.
    """
    own, shared = os.environ.get("SUBLAYER_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "sublayer"
    except RuntimeError:
        said = f"SUBLAYER_CACHE={own}" if own else f"XDG_CACHE_HOME={shared}" if shared else "~/.cache/sublayer"
        raise StorageError(
            f"{said}: there is no such home folder", "Set SUBLAYER_CACHE to the path of a folder."
        ) from None


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8 under `path`, whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON under `path`, whole or not at all."""
    write_text(path, to_json(value, indent=2) + "\n")


def require_name(path: Path) -> None:
    """Raise where no file can be called so, before any work is done for it.

    Raises:
        StorageError: the name is not UTF-8, is too long, or holds a NUL.
    """
    shown = os.fsencode(path).decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    if shown != str(path):
        raise StorageError(f"the name {shown} cannot be a file's: it is not UTF-8, or holds a NUL", "Choose another.")
    long = [part for part in path.parts if len(os.fsencode(part)) > _LONGEST]
    if long:
        raise StorageError(
            f"the name {long[0][:40]}… has {len(os.fsencode(long[0])):,} bytes, and a file's has {_LONGEST} at most",
            "Choose a shorter one.",
        )


_LONGEST = 255


def storage_error(path: Path, error: OSError, then: str = "what was there before is untouched") -> StorageError:
    """What the disk refused, with the remedy for it. then: the end of the remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "Choose another place")
    return StorageError(f"could not write {path}: {error.strerror or error}", f"{remedy}; {then}.")


_FULL = "Free space or choose another place"
_FORBIDDEN = "Check the permissions or choose another place"
_TAKEN = "Something else stands there: choose another place"
_REMEDIES = {
    0: _FULL,  # the library that writes tensors says no number
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "It can only be read: choose another place",
    errno.EEXIST: _TAKEN,
    errno.ENOTEMPTY: _TAKEN,
    errno.EISDIR: _TAKEN,
    errno.ENOTDIR: _TAKEN,
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EMFILE: "Too many files are open: close some, or raise `ulimit -n`",
    errno.ENFILE: "Too many files are open: end other programs",
    errno.EIO: "The disk may be broken: choose another one",
}


def _own_folder(parent: Path, held: ExitStack) -> Path:
    """A new folder whose lock `held` holds; where there are no locks, nobody ever takes it for left."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=ASIDE, dir=parent))
        try:
            held.enter_context(locked(work / OWNER))
        except NoLocksError:
            pass
        except (LockedError, FileNotFoundError):  # another process took it for left in this instant
            continue
        return work


@contextmanager
def _written_through(path: Path) -> Generator[Path]:
    """A path whose bytes go into `path`, a device or a pipe: it must not be replaced."""
    with tempfile.TemporaryDirectory(prefix=ASIDE) as work:
        aside = Path(work) / (path.name or "file")
        yield aside
        with aside.open("rb") as source, path.open("wb") as goal:
            shutil.copyfileobj(source, goal)


def _put(new: Path, path: Path, work: Path, parts: Sequence[str]) -> None:
    """Rename `new` onto `path`; of a folder that is there, what is not among its parts is kept."""
    if not new.is_dir():
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder stands there, and a file is to be written")
        os.replace(new, path)
        return
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file stands there, and a folder is to be written")
    for attempt in range(_ATTEMPTS):
        old = work / f"old-{attempt}" / path.name
        if path.is_dir():
            _keep(path, new, parts)
            old.parent.mkdir()
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            # Another process has put a folder there this moment.
            if not path.is_dir() or attempt == _ATTEMPTS - 1:
                raise
            continue
        for each in work.glob(f"old-*/{path.name}"):
            _keep(each, path, parts)  # what was written there in the meantime
        return


_ATTEMPTS = 10


def _keep(old: Path, new: Path, parts: Sequence[str]) -> None:
    """Give the folder `new` what stands in `old` and is not a part of it, by links where the disk has them."""
    for path in old.iterdir():
        goal = new / path.name
        if os.path.lexists(goal) or is_leftover(path) or any(fnmatchcase(path.name, part) for part in parts):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, goal, symlinks=True, copy_function=_link)
        else:
            _link(path, goal)


def _link(source: str | Path, goal: str | Path) -> None:
    try:
        os.link(source, goal, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, goal, follow_symlinks=False)


def _dissolve(work: Path) -> None:
    """Empty a working folder but for its lock; first put back what was moved away and has no successor."""
    for old in sorted(work.glob("old-*/*")):
        goal = work.parent / old.name
        if not goal.exists():
            try:
                old.rename(goal)
            except OSError:  # the only whole version must stay
                return
    for path in work.iterdir():
        if path.name != OWNER:
            _remove(path)


def _flush(path: Path) -> None:
    """Ask the kernel to put the contents on the disk before the rename makes them count."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def _flush_folder(path: Path) -> None:
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove(path: Path) -> None:
    """As far as it can be: this tidies up, and must not hide the error that made it necessary."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
