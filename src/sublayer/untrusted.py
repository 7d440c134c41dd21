"""Read what somebody else wrote: JSON within stated limits, and paths that may be no paths at all.

Every module reads JSON from files through here, so that a hostile file meets the same limits wherever it lies. What is
written as JSON goes through `to_json`, which never writes NaN: JSON has no such number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from sublayer.errors import CheckpointError, InputError, SublayerError

LARGEST = 64 * 1024 * 1024
"""Bytes of a JSON file. The largest tokenizer.json in use (262,144 tokens) has about half of it."""
DEEPEST = 64
"""Lists and objects inside one another."""
TOO_DEEP = f"nests lists or objects more than {DEEPEST} deep"
LONGEST_INTEGER = 40
"""Digits with the sign: tokenizer_config.json says "no limit" by 10 ** 30 in full."""

AGAIN = "Fetch it again, whole."
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""C0 and C1 but tab and line feed, the separators of lines, and what turns the direction of writing around."""
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


class UntrustedError(ValueError):
    """What is wrong with a JSON text, as the end of a sentence."""


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        UntrustedError: it is not UTF-8 or not JSON, is over 64 MiB, nests over 64 deep, has an integer of over 40
            digits, NaN, an infinite number, a key twice in one object, or half of a surrogate pair.
    """
    if len(text) > LARGEST:
        raise UntrustedError(f"has over {LARGEST >> 20} MiB")
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        value: Any = json.loads(
            decoded, parse_int=_integer, parse_float=_number, parse_constant=_constant, object_pairs_hook=_object
        )
    except UnicodeDecodeError as error:
        raise UntrustedError(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UntrustedError(f"is not JSON ({error.msg} in line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise UntrustedError(TOO_DEEP) from None
    _require_shallow(value, strings=_HALF_PAIR.search(decoded) is not None)
    return value


def read_json(path: Path, error: type[SublayerError] = CheckpointError, remedy: str = AGAIN) -> Any:
    """Return the value in a JSON file.

    Args:
        error: what to raise. remedy: what to do about a file that is damaged, or not there.

    Raises:
        error: the file is missing, cannot be read, or is outside the limits of `parse_json`.
    """
    held = read_bytes(path, error, remedy)
    try:
        return parse_json(held)
    except UntrustedError as problem:
        raise error(f"{path} is damaged: it {problem}", remedy) from None


def read_object(path: Path, error: type[SublayerError] = CheckpointError, remedy: str = AGAIN) -> dict[str, Any]:
    """Return the object in a JSON file; raise as `read_json`, and where it is something else."""
    value = read_json(path, error, remedy)
    if not isinstance(value, dict):
        raise error(f"{path} is not a JSON object", remedy)
    return cast("dict[str, Any]", value)


def read_bytes(path: Path, error: type[SublayerError] = CheckpointError, remedy: str = AGAIN) -> bytes:
    """Return the contents of a file that should be small; raise `error` where it is missing, unreadable or large."""
    try:
        with path.open("rb") as handle:
            held = handle.read(LARGEST + 1)
    except FileNotFoundError:
        raise error(f"{path} is missing", remedy) from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"cannot read {path}: {reason}", "Check the path and its permissions.") from None
    if len(held) > LARGEST:
        raise error(f"{path} has over {LARGEST >> 20} MiB, and no such file has", remedy)
    return held


def exists(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Whether there is anything, or what `kind` asks for; a name that cannot be one (too long, with a NUL) is none."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file, as `exists`."""
    return exists(path, Path.is_file)


def is_folder(path: Path) -> bool:
    """Whether there is a folder, as `exists`."""
    return exists(path, Path.is_dir)


def expanded(path: str | Path) -> Path:
    """Return the path with `~` and `~user` resolved; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextmanager
def library_errors(what: str, remedy: str = AGAIN, error: type[SublayerError] = CheckpointError) -> Generator[None]:
    """Turn whatever a library raises over a file into one `error`: "{what} (the library's first line)".

    Rust's panics come as a PanicException, which is no Exception; nothing else of that kind is caught.
    """
    try:
        yield
    except SublayerError:
        raise
    except BaseException as problem:
        if not isinstance(problem, Exception) and type(problem).__name__ != "PanicException":
            raise
        raise error(f"{what} ({first_line(problem)})", remedy) from problem


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return next((line[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def printable(text: str) -> str:
    """Return `text` with each control character but tab and line feed as the escape that Python writes for it.

    To a terminal a control character is a command; so are the signs that turn the direction of writing around.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def to_json(value: Any, *, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """Return `value` as JSON.

    Raises:
        InputError: there is a number in it that is not finite; says where.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, separators=separators, allow_nan=False)
    except ValueError:
        where = _not_finite(value, ())
        if where is None:
            raise
        raise InputError(
            f"{where} is not a finite number, and JSON has no other",
            "Look for weights or a type (float16) in which the model's numbers overflow.",
        ) from None


# --- the limits --------------------------------------------------------------------------------------------------


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise UntrustedError(f"has an integer of {len(digits)} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise UntrustedError(f"has the number {digits[:40]}, which is too large")
    return value


def _constant(word: str) -> Any:
    raise UntrustedError(f"has {word}, which is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise UntrustedError(f"has the key {twice[:80]!r} twice in one object")
    return table


def _require_shallow(value: Any, *, strings: bool) -> None:
    """Without recursion. strings: also refuse halves of surrogate pairs, which no file can hold as UTF-8."""
    level = [value]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for each in level:
            inside: Sequence[Any] = ()
            if isinstance(each, dict):
                table = cast("dict[str, Any]", each)
                inside = [*table.values(), *table] if strings else list(table.values())
            elif isinstance(each, list):
                inside = cast("list[Any]", each)
            elif strings and isinstance(each, str) and any("\ud800" <= sign <= "\udfff" for sign in each):
                raise UntrustedError("has half of a surrogate pair (\\uD800 and on)")
            below += inside if strings else [one for one in inside if isinstance(one, (dict, list))]
        if not below:
            return
        level = below
    raise UntrustedError(TOO_DEEP)


def _not_finite(value: Any, place: tuple[str, ...]) -> str | None:
    """Where the first number stands that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{'.'.join(place) or 'the value'} = {value}"
    if isinstance(value, dict):
        pairs = [(str(key), one) for key, one in cast("dict[Any, Any]", value).items()]
    elif isinstance(value, (list, tuple)):
        pairs = [(str(key), one) for key, one in enumerate(cast("Sequence[Any]", value))]
    else:
        return None
    return next((found for key, one in pairs if (found := _not_finite(one, (*place, key))) is not None), None)
