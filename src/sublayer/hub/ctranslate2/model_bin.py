"""`model.bin`: named tensors, numbers and second names, in the binary format of CTranslate2 (version 6).

    uint32 version, string specification, uint32 revision
    uint32 count, then for each variable: string name, uint8 rank, uint32 sizes, uint8 type, uint32 bytes, its numbers
    uint32 count, then for each alias: string alias, string name

Numbers are little-endian; a string is a uint16 length, its bytes, and a zero that the length counts. A matrix of int8
or int16 has a float32 scale beside it, "NAME_scale", one a row: what is stored is the nearest whole number of
weight * scale.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sublayer.errors import CheckpointError
from sublayer.hub.sources import AGAIN, Header

VERSION = 6
OLDEST = 4
"""Before version 4 a variable has no type, only the bytes of its numbers."""
DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
"""By the number that stands for each."""
LARGEST = 2**32 - 1
"""Bytes of a variable."""
MOST = 2**20
"""Variables, and aliases."""
SCALE = "_scale"
TEXTS = ("unk_token", "bos_token", "eos_token")
"""Variables of bytes, in files of before version 6."""

Weights = Literal["float32", "float16", "bfloat16", "int8"]


# --- out ---------------------------------------------------------------------------------------------------------


def write(
    path: Path,
    specification: str,
    revision: int,
    variables: Mapping[str, Callable[[], Tensor]],
    aliases: Mapping[str, str],
) -> None:
    """Write the file; of the tensors there is one in memory at a time.

    Args:
        variables: by name; one of rank 0 is a number. aliases: second names, each with the name of a variable.

    Raises:
        CheckpointError: a variable has 4 GiB or more, which the format cannot say.
    """
    with path.open("wb") as file:
        file.write(struct.pack("<I", VERSION) + _string(specification) + struct.pack("<II", revision, len(variables)))
        for name, made in sorted(variables.items()):
            tensor = made().detach().cpu().contiguous()
            size = tensor.numel() * tensor.element_size()
            if size > LARGEST:
                raise CheckpointError(
                    f"{name} has {size:,} bytes, and CTranslate2's format has room for {LARGEST:,}",
                    "Write narrower weights: --weights int8.",
                )
            file.write(_string(name) + struct.pack("<B", tensor.dim()))
            file.write(struct.pack(f"<{tensor.dim()}I", *tensor.shape))
            file.write(struct.pack("<BI", DTYPES.index(tensor.dtype), size))
            file.write(_bytes_of(tensor))
        file.write(struct.pack("<I", len(aliases)))
        for alias, name in sorted(aliases.items()):
            file.write(_string(alias) + _string(name))


def stored(name: str, tensor: Callable[[], Tensor], weights: Weights) -> dict[str, Callable[[], Tensor]]:
    """The variables that a tensor is kept as: a matrix of weights in int8 has its scale beside it."""
    if weights != "int8" or not name.endswith("weight"):
        dtype = torch.float32 if weights == "int8" else getattr(torch, weights)
        return {name: lambda: tensor().to(dtype)}
    return {name: lambda: _quantized(tensor())[0], name + SCALE: lambda: _quantized(tensor())[1]}


def _quantized(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [O, I] as whole numbers and [O] scales, as CTranslate2's own converters round them."""
    wide = matrix.float()
    largest = wide.abs().amax(dim=1)
    # A division, which 127 / x is not: torch multiplies by the reciprocal.
    scale = torch.full_like(largest, 127.0) / torch.where(largest == 0, 127.0, largest)
    return (wide * scale[:, None]).round().to(torch.int8), scale


def _bytes_of(tensor: Tensor) -> memoryview | bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b""


def _string(text: str) -> bytes:
    held = text.encode("utf-8")
    return struct.pack("<H", len(held) + 1) + held + b"\0"


# --- in ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Variable:
    shape: tuple[int, ...]
    dtype: torch.dtype
    place: int


@dataclass(frozen=True, eq=False)
class ModelBin:
    """A `Source` of tensors, by all their names, and numbers.

    Whole numbers with a scale are float32 to whoever asks: a scale is no tensor of its own.
    """

    name: str
    specification: str
    revision: int
    variables: Mapping[str, _Variable]
    aliases: Mapping[str, str]
    held: mmap.mmap

    @property
    def headers(self) -> Mapping[str, Header]:
        return self._headers

    @cached_property
    def _headers(self) -> Mapping[str, Header]:
        found = {
            name: Header(each.shape, torch.float32 if self._scale(name) else each.dtype)
            for name, each in self.variables.items()
            if each.shape and not self._is_scale(name) and name not in TEXTS
        }
        return {**{alias: found[name] for alias, name in self.aliases.items() if name in found}, **found}

    @cached_property
    def numbers(self) -> Mapping[str, int | float]:
        """What has no dimensions, by all its names."""
        found = {name: self._read(each).item() for name, each in self.variables.items() if not each.shape}
        found = {name: value for name, value in found.items() if not self._is_scale(name)}
        return {**{alias: found[name] for alias, name in self.aliases.items() if name in found}, **found}

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """What is text: tokens, before config.json named them."""
        found = {name: self._read(self.variables[name]) for name in TEXTS if name in self.variables}
        return {name: value.view(torch.uint8).numpy().tobytes().decode("utf-8") for name, value in found.items()}

    def tensor(self, name: str) -> Tensor:
        own = self.original(name)
        found, scale = self._read(self.variables[own]), self._scale(own)
        if scale is None:
            return found
        factor = self._read(scale).float()
        return found.float() / (factor.reshape(-1, *[1] * (found.dim() - 1)) if scale.shape else factor)

    def original(self, name: str) -> str:
        """The name that a variable was stored by: two names with the same one are tied."""
        return self.aliases.get(name, name)

    def _is_scale(self, name: str) -> bool:
        weight = self.variables.get(name.removesuffix(SCALE)) if name.endswith(SCALE) else None
        return weight is not None and weight.shape != ()

    def _scale(self, name: str) -> _Variable | None:
        whole = self.variables[name].dtype in (torch.int8, torch.int16)
        return self.variables.get(name + SCALE) if whole else None

    def _read(self, each: _Variable) -> Tensor:
        count = math.prod(each.shape)
        size = count * each.dtype.itemsize
        # A copy: the file is read-only, and torch's tensors are not.
        held = bytearray(self.held[each.place : each.place + size])
        return torch.frombuffer(held, dtype=each.dtype, count=count).reshape(each.shape)


def read(path: Path) -> ModelBin:
    """The file at `path`; no tensor is read before it is asked for.

    Raises:
        CheckpointError: it is missing, damaged, of another version, or no such file.
    """
    try:
        with path.open("rb") as file:
            held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _Reader(held).model(str(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing", AGAIN) from None
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{path} is damaged or no model of CTranslate2 ({error})", AGAIN) from None


class _Reader:
    def __init__(self, held: mmap.mmap) -> None:
        self.held, self.place = held, 0

    def model(self, name: str) -> ModelBin:
        version = self._number("<I")
        if not OLDEST <= version <= VERSION:
            raise ValueError(f"it is of version {version}, and read are {OLDEST} to {VERSION}")
        specification, revision = self._string(), self._number("<I")
        variables: dict[str, _Variable] = {}
        for _ in range(self._count("variables")):
            name_, variable = self._string(), self._variable()
            if name_ in variables:
                raise ValueError(f"the variable {name_} stands there twice")
            variables[name_] = variable
        aliases = {self._string(): self._string() for _ in range(self._count("aliases"))}
        for alias, goal in aliases.items():
            if goal not in variables or alias in variables:
                raise ValueError(f"the alias {alias} of {goal} cannot be")
        if self.place != len(self.held):
            raise ValueError(f"{len(self.held) - self.place} bytes are left at its end")
        for scale in (name for name in variables if name.endswith(SCALE)):
            weight = variables.get(scale.removesuffix(SCALE))
            if weight is not None and variables[scale].shape not in ((), (1,), weight.shape[:1]):
                raise ValueError(f"{scale} does not fit its matrix")
        return ModelBin(name, specification, revision, variables, aliases, self.held)

    def _count(self, what: str) -> int:
        count = self._number("<I")
        if count > MOST:
            raise ValueError(f"it claims to have {count} {what}")
        return count

    def _variable(self) -> _Variable:
        rank = self._number("<B")
        shape = tuple(self._number("<I") for _ in range(rank))
        kind, size = self._number("<B"), self._number("<I")
        if kind >= len(DTYPES):
            raise ValueError(f"it has a variable of the unknown type {kind}")
        dtype = DTYPES[kind]
        if math.prod(shape) * dtype.itemsize != size or 0 in shape:
            raise ValueError(f"a variable of {size} bytes claims to be of the shape {list(shape)}")
        begin = self._skip(size)
        return _Variable(shape, dtype, begin)

    def _string(self) -> str:
        size = self._number("<H")
        begin = self._skip(size)
        if not size or self.held[self.place - 1] != 0:
            raise ValueError("it has a name that does not end")
        return self.held[begin : self.place - 1].decode("utf-8")

    def _number(self, form: str) -> int:
        size = struct.calcsize(form)
        begin = self._skip(size)
        return struct.unpack(form, self.held[begin : begin + size])[0]

    def _skip(self, size: int) -> int:
        """The place of the next bytes, which must be there."""
        begin = self.place
        if size > len(self.held) - begin:
            raise ValueError("it ends too early, or claims to be longer than it is")
        self.place += size
        return begin
