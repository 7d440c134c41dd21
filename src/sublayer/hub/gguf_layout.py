"""Whether a GGUF file is laid out as its header says, before anything is read from it or made room for.

The library that reads GGUF believes every number in the header: counts, lengths of arrays, places of tensors. Here they
are compared with the size of the file, by the rules of llama.cpp (`gguf_init_from_file_impl`): arrays and strings end
inside of the file, and each tensor begins where the one before it ends, rounded up to the alignment.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

MOST_KEYS = 65_536
MOST_TENSORS = 65_536
MOST_DIMENSIONS = 4
LONGEST_NAME = 65_535
MOST_VALUES = 2**24
"""In an array; the longest in use is a list of merges, of 500,000."""

_SIZES = {kind: np.dtype(scalar).itemsize for kind, scalar in GGUFReader.gguf_scalar_to_np.items()}


def require_layout(path: Path) -> None:
    """Raise a ValueError that says what is wrong, where the file is not what its header says.

    OSError: it cannot be read.
    """
    with path.open("rb") as handle:
        if path.stat().st_size < 24:
            raise ValueError("it is too short")
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as held:
            _Header(held).require()


class _Header:
    def __init__(self, held: mmap.mmap) -> None:
        self.held, self.place, self.size = held, 0, len(held)
        self.alignment = GGUF_DEFAULT_ALIGNMENT

    def require(self) -> None:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin as a GGUF file does")
        version = self._number("<I")
        if version not in (2, 3):
            raise ValueError(f"it is of version {version}, and read are 2 and 3 (little-endian)")
        tensors, keys = self._number("<Q"), self._number("<Q")
        if tensors > MOST_TENSORS or keys > MOST_KEYS:
            raise ValueError(f"it claims to have {tensors} tensors and {keys} settings")
        named: set[str] = set()
        for _ in range(keys):
            self._setting(named)
        infos = [self._tensor(named) for _ in range(tensors)]
        begin = self._rounded(self.place)
        expected = 0
        for name, size, offset in infos:
            if offset != expected:
                raise ValueError(f"the tensor {name} stands at {offset} and should at {expected}")
            if begin + offset + size > self.size:
                raise ValueError(f"the tensor {name} goes on beyond the end of the file")
            expected = self._rounded(offset + size)

    def _setting(self, named: set[str]) -> None:
        key = self._name()
        if key in named:
            raise ValueError(f"the setting {key} stands there twice")
        named.add(key)
        kind = self._kind()
        begin = self.place
        if kind is GGUFValueType.STRING:
            self._string()
        elif kind is GGUFValueType.ARRAY:
            self._array(key)
        else:
            self._bytes(_SIZES[kind])
        if key == "general.alignment":
            self.alignment = int.from_bytes(self.held[begin : self.place], "little")
            if kind is not GGUFValueType.UINT32 or self.alignment not in (2**n for n in range(17)):
                raise ValueError(f"its alignment is {self.alignment}, and should be a power of two")

    def _array(self, key: str) -> None:
        kind, count = self._kind(), self._number("<Q")
        if kind is GGUFValueType.ARRAY:
            raise ValueError(f"the setting {key} is a list of lists")
        least = 8 if kind is GGUFValueType.STRING else _SIZES[kind]
        if count > MOST_VALUES or count * least > self.size - self.place:
            raise ValueError(f"the setting {key} claims to have {count} values")
        if kind is GGUFValueType.STRING:
            for _ in range(count):
                self._string()
        else:
            self._bytes(count * least)

    def _tensor(self, named: set[str]) -> tuple[str, int, int]:
        """Name, bytes, and place behind the header."""
        name = self._name()
        if f"tensor {name}" in named:
            raise ValueError(f"the tensor {name} stands there twice")
        named.add(f"tensor {name}")
        dimensions = self._number("<I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"the tensor {name} has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        number = self._number("<I")
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(number)]
        except (ValueError, KeyError):
            raise ValueError(f"the tensor {name} is of the unknown type {number}") from None
        count = math.prod(shape)
        if not 0 < count <= 32 * self.size or shape[0] % block:
            raise ValueError(f"the tensor {name} claims to be of the shape {shape}")
        return name, count // block * size, self._number("<Q")

    def _rounded(self, place: int) -> int:
        return -(-place // self.alignment) * self.alignment

    def _kind(self) -> GGUFValueType:
        number = self._number("<I")
        try:
            return GGUFValueType(number)
        except ValueError:
            raise ValueError(f"it has a value of the unknown type {number}") from None

    def _name(self) -> str:
        held = self._string()
        if len(held) > LONGEST_NAME:
            raise ValueError("it has a name that is too long")
        return held.decode("utf-8")

    def _string(self) -> bytes:
        return self._bytes(self._number("<Q"))

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _bytes(self, count: int) -> bytes:
        if count > self.size - self.place:
            raise ValueError("it ends too early, or claims to be longer than it is")
        begin = self.place
        self.place += count
        return self.held[begin : self.place]
