"""The programs of a model with their packed matrices in one file, which is mapped, not read.

    sublayer engine 1     17 letters and a line feed
    length of the header  8 bytes, the least first
    header                JSON: layout, about, programs, matrices, arrays
    numbers               from the next multiple of 4096 on, each matrix and array at a multiple of 64

The numbers lie as the engine multiplies by them, the same on every processor. How that is may change from one version
of the library to another, so the file has the sum of what its writer's made of a known matrix: where this library's
makes another, the file is refused, and made anew by whoever can.

A file may have been written by anybody. It holds no code; every size is compared with the file and with the operations
that go by it (`checks.py`).
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sublayer.errors import CheckpointError
from sublayer.fast.engine.checks import MOST, Geometry, Unsound, check
from sublayer.fast.engine.executable import ALIGNED, Executable, Mark, Matrix, bytes_of, packed
from sublayer.fast.engine.library import ACTIVATIONS, CODES, FLAGS, FORMATS, COp
from sublayer.untrusted import UntrustedError, parse_json, to_json

MAGIC = b"sublayer engine 1\n"
PAGE = 4096
LARGEST_HEADER = 16 * 1024 * 1024
REMEDY = "Remove it: it is made anew."


@dataclass(frozen=True, eq=False)
class EngineFile:
    """What a file holds. path: where it was read. about: what it was made of, as its writer said."""

    path: Path
    programs: Mapping[str, Executable]
    geometry: Geometry
    about: Mapping[str, Any]


def write_file(path: Path, programs: Mapping[str, Executable], geometry: Geometry, about: Mapping[str, Any]) -> None:
    """Write the file of these programs, "decoding" and, of an encoder-decoder, "encoding".

    Raises:
        OSError: the disk refused.
    """
    written = _Numbers()
    header = {
        "layout": layout(),
        "about": dict(about),
        "geometry": asdict(geometry),
        "programs": {name: written.program(program) for name, program in programs.items()},
        "matrices": written.matrices,
        "arrays": written.arrays,
    }
    told = to_json(header).encode()
    begin = MAGIC + len(told).to_bytes(8, "little") + told
    with path.open("wb") as handle:
        handle.write(begin.ljust(_up(len(begin), PAGE), b"\0"))
        for numbers in written.parts:
            handle.write(numbers.tobytes().ljust(_up(numbers.nbytes, ALIGNED), b"\0"))


def read_file(path: Path) -> EngineFile:
    """Map a file.

    Raises:
        CheckpointError: it is missing, damaged, or made for another version of the engine. Unavailable: there is no
            engine here.
    """
    try:
        with path.open("rb") as handle:
            held = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", REMEDY) from None
    try:
        return _read(path, held)
    except (Unsound, UntrustedError) as error:
        raise CheckpointError(f"{path} {error}", REMEDY) from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path} lacks or garbles {error}", REMEDY) from None


def _read(path: Path, held: mmap.mmap) -> EngineFile:
    first = len(MAGIC) + 8
    if held[: len(MAGIC)] != MAGIC:
        raise Unsound("is no file of this version of the engine")
    length = int.from_bytes(held[len(MAGIC) : first], "little")
    if length > min(LARGEST_HEADER, len(held) - first):
        raise Unsound(f"has a header of {length:,} bytes")
    header: dict[str, Any] = parse_json(held[first : first + length])
    if header["layout"] != layout():
        raise Unsound("was made for another version of the engine")
    numbers = np.frombuffer(held, np.uint8)[_up(first + length, PAGE) :]
    matrices = [_matrix(numbers, *each) for each in header["matrices"]]
    arrays = [_slice(numbers, offset, 4 * count).view(np.float32) for count, offset in header["arrays"]]
    told: dict[str, Any] = dict(header["geometry"])
    told["sources"] = tuple((groups, width) for groups, width in told["sources"])
    geometry = Geometry(**told)
    programs: dict[str, Executable] = {}
    for name in ("decoding", *(["encoding"] if geometry.sources else [])):
        plain = header["programs"][name]
        own = [matrices[_within(number, matrices)] for number in plain["matrices"]]
        marks = {str(mark): Mark(*fields) for mark, fields in plain["marks"].items()}
        programs[name] = Executable(list(plain["operations"]), own, arrays, list(plain["widths"]), marks)
        check(programs[name], geometry, decodes=name == "decoding")
    marks = programs["decoding"].marks
    logits = marks["logits"]
    if "hidden" not in marks:
        raise Unsound("does not say where a prompt is read")
    if logits.width != geometry.vocabulary:
        raise Unsound(f"has logits of {logits.width} tokens and not {geometry.vocabulary}")
    return EngineFile(path, programs, geometry, dict(header["about"]))


def _matrix(numbers: NDArray[np.uint8], kept_as: str, out: int, columns: int, offset: int) -> Matrix:
    if kept_as not in FORMATS or not all(type(each) is int and 0 < each <= MOST for each in (out, columns)):
        raise Unsound(f"has a matrix of {out!r} rows and {columns!r} columns in {kept_as!r}")
    size = bytes_of(kept_as, out, columns)
    if not size:
        raise Unsound(f"has a matrix of {columns} columns in {kept_as}")
    return Matrix(kept_as, out, columns, _slice(numbers, offset, size))


def _slice(numbers: NDArray[np.uint8], offset: int, size: int) -> NDArray[np.uint8]:
    fine = type(offset) is int and type(size) is int and offset >= 0 and size >= 0
    if not fine or offset % ALIGNED or offset + size > numbers.size:
        raise Unsound(f"has {size!r} bytes at {offset!r}, and {numbers.size:,} in all")
    return numbers[offset : offset + size]


def _within(number: Any, matrices: list[Matrix]) -> int:
    if type(number) is not int or not 0 <= number < len(matrices):
        raise Unsound(f"has no matrix {number!r}")
    return number


class _Numbers:
    """The numbers of programs side by side, each once."""

    def __init__(self) -> None:
        self.parts: list[NDArray[Any]] = []
        self.matrices: list[tuple[str, int, int, int]] = []
        self.arrays: list[tuple[int, int]] = []
        self._offset = 0
        self._place: dict[int, int] = {}

    def program(self, program: Executable) -> dict[str, Any]:
        moved = [self._array(array) for array in program.arrays]
        tables = ("weight", "bias", "table", "table2")
        return {
            "operations": [
                {name: moved[value] if name in tables else value for name, value in operation.items()}
                for operation in program.operations
            ],
            "matrices": [self._matrix(matrix) for matrix in program.matrices],
            "widths": list(program.widths),
            "marks": {name: [mark.count, mark.table, mark.width] for name, mark in program.marks.items()},
        }

    def _matrix(self, matrix: Matrix) -> int:
        if id(matrix) not in self._place:
            self._place[id(matrix)] = len(self.matrices)
            self.matrices.append((matrix.kept_as, matrix.out, matrix.columns, self._put(matrix.data)))
        return self._place[id(matrix)]

    def _array(self, array: NDArray[np.float32]) -> int:
        self.arrays.append((array.size, self._put(array)))
        return len(self.arrays) - 1

    def _put(self, numbers: NDArray[Any]) -> int:
        offset = self._offset
        self.parts.append(numbers)
        self._offset += _up(numbers.nbytes, ALIGNED)
        return offset


@cache
def layout() -> str:
    """How this library lays out matrices and what its operations are called, as one sum: what a file is good for.

    Raises:
        Unavailable: there is no engine here.
    """
    known = np.sin(np.arange(24 * 256, dtype=np.float32)).reshape(24, 256)
    found = hashlib.sha256(repr((sorted(CODES), sorted(FLAGS), sorted(ACTIVATIONS), COp._fields_)).encode())
    for kept_as in FORMATS:
        found.update(packed(known, kept_as).data.tobytes())
    return found.hexdigest()


def _up(count: int, step: int) -> int:
    return -(-count // step) * step
