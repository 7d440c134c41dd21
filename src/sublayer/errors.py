"""What went wrong, where, and what to do about it.

Every error that a user can cause is a `SublayerError`: one sentence that names the thing and its value, and a
remedy. The command line prints it on one line and exits with 2; from Python it is an ordinary exception (and a
`ValueError`, so that code which expects the usual exception for a bad argument works). Anything else that escapes
is a fault of sublayer's: the command line says so in one line, and from Python it keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Self, TypeVar

T = TypeVar("T")


class SublayerError(ValueError):
    """Something that the user can mend.

    Args:
        what: what is wrong, naming the argument (or file and line) and its value.
        remedy: what to do about it; may be empty where `what` already says so.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        ended = what if what[-1] in ".?!" else what + "."
        super().__init__(f"{ended} {remedy}" if remedy else what)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """As it comes out of another process."""
        return type(self), (self.what, self.remedy)


class ConfigError(SublayerError):
    """A recipe, an override or a model configuration that cannot be."""


class DataError(SublayerError):
    """Text that cannot be read or used: names the file and the line."""


class CheckpointError(SublayerError):
    """A model folder or run folder that is missing, damaged, or does not fit."""


class StorageError(SublayerError):
    """The disk refused: full, read-only, or gone. What was there before is untouched."""


class TrainingError(SublayerError):
    """Training cannot go on, such as at a loss that is not finite."""


class InputError(SublayerError):
    """Text given to a model that the model cannot take, such as a sentence longer than its positions."""


def named(known: Mapping[str, T], name: str, error: type[SublayerError], what: str) -> T:
    """The one of `known` that is called `name`; where there is none, `error` is raised, which says `what` and the
    nearest name."""
    if name not in known:
        raise error(what, nearest(name, known))
    return known[name]


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one, or the list of all.

    >>> nearest("warmpu", ["warmup", "steps"])
    "Did you mean 'warmup'?"
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(known)}." if known else ""
