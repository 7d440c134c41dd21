"""The engine's shared library: its functions, and the structures that they read (`cpp/engine.h`)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

from sublayer.errors import InputError

NAME = "libengine.so"
ISA = "SUBLAYER_ISA"

CODES: Mapping[str, int] = {
    name: number
    for number, name in enumerate(
        ("embed", "norm", "linear", "rotate", "attend", "cross", "gate", "add", "scale", "cap", "mix", "store")
    )
}
ACTIVATIONS: Mapping[str, int] = {
    name: number for number, name in enumerate(("none", "relu", "gelu", "gelu_tanh", "silu", "tanh"))
}
FLAGS: Mapping[str, int] = {
    name: 1 << bit
    for bit, name in enumerate(("ACCUMULATE", "ROOT_MEAN", "INTERLEAVED", "CACHED", "NORMALIZE", "SQUARED", "CLAMPED"))
}
FORMATS: Mapping[str, int] = {
    name: number
    for number, name in enumerate(("float32", "bfloat16", "int8", "int4", "q8_0", "q4_k", "q6_k"))
}  # fmt: skip


class CMatrix(Structure):
    """`Matrix`."""

    _fields_ = [("format", c_int32), ("out", c_int64), ("in_", c_int64), ("data", c_void_p)]


class COp(Structure):
    """`Op`."""

    _fields_ = [
        *((name, c_int32) for name in ("code", "flags", "activation", "in_", "out", "column", "out_column", "width")),
        *((name, c_int32) for name in ("matrix", "parts", "heads", "groups", "head", "layer", "window")),
        *((name, c_int32) for name in ("experts", "active")),
        *((name, c_float) for name in ("a", "cap")),
        *((name, c_void_p) for name in ("weight", "bias", "table", "table2")),
        ("positions", c_int64),
    ]


class CCall(Structure):
    """`Call`."""

    _fields_ = [
        ("tokens", c_void_p),
        ("rows", c_int64),
        ("fresh", c_int64),
        ("held", c_int64),
        ("capacity", c_int64),
        ("cache", c_void_p),
        ("cache_rows", c_void_p),
        ("padding", c_void_p),
        ("lengths", c_void_p),
        ("sources", c_int64),
        ("source_length", c_int64),
        ("memory", c_void_p),
        ("source_lengths", c_void_p),
        ("count", c_int64),
        ("result", c_int32),
        ("out", c_void_p),
        ("best", c_int64),
        ("best_columns", c_void_p),
        ("best_logs", c_void_p),
        ("shortlist", c_void_p),
    ]


class CShortlist(Structure):
    """`Shortlist`."""

    _fields_ = [
        ("matrix", POINTER(CMatrix)),
        ("bias", c_void_p),
        ("most", c_int64),
        ("choices", c_void_p),
        ("counts", c_void_p),
    ]


class Unavailable(Exception):
    """The engine cannot be loaded here; the message says why."""


@lru_cache(maxsize=1)
def say_once(reason: str) -> None:
    """Say on standard error that the engine is not used, and why."""
    sys.stderr.write(f"sublayer: models run as modules, which is slower: {reason}\n")


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """The shared library.

    Raises:
        Unavailable: it was not built, or cannot be loaded.
    """
    path = Path(__file__).parent / NAME
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"{path.name} cannot be loaded: {error}") from None
    # One that was built before the code it is called by was changed: to call it would write where nothing is.
    expected = ctypes.sizeof(COp) << 32 | ctypes.sizeof(CCall) << 16 | ctypes.sizeof(CMatrix)
    size = getattr(found, "interface_bytes", None)
    if size is not None:
        size.restype = c_int64
    if size is None or size() != expected:
        raise Unavailable(f"{path.name} was built for another version: install sublayer again")
    signatures: Mapping[str, tuple[Any, list[Any]]] = {
        "matrix_bytes": (c_int64, [c_int32, c_int64, c_int64]),
        "exact_format": (c_int32, [c_int64, c_int64, c_void_p]),
        "matrix_pack": (None, [c_int32, c_int64, c_int64, c_void_p, c_void_p]),
        "matrix_take": (None, [POINTER(CMatrix), c_int64, c_void_p, c_void_p]),
        "matrix_unpack": (None, [POINTER(CMatrix), c_void_p]),
        "round_input": (None, [c_int64, c_int64, c_void_p, c_void_p]),
        "multiply": (c_int32, [c_char_p, POINTER(CMatrix), c_int64, c_void_p, c_void_p, c_int32]),
        "instruction_sets": (c_char_p, []),
        "engine_new": (
            c_void_p, [c_char_p, POINTER(COp), c_int64, POINTER(CMatrix), POINTER(c_int64), c_int64, c_int32]
        ),
        "engine_free": (None, [c_void_p]),
        "engine_run": (c_int32, [c_void_p, POINTER(CCall)]),
    }  # fmt: skip
    for name, (result, arguments) in signatures.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def instruction_sets() -> list[str]:
    """Those that this processor has and the engine knows, the best first.

    Raises:
        Unavailable: as `library`.
    """
    return library().instruction_sets().decode().split()


def instruction_set() -> str:
    """The one to use: the best, or that of the variable SUBLAYER_ISA.

    Raises:
        InputError: the variable names one that is not to be had here. Unavailable: as `library`.
    """
    there = instruction_sets()
    wanted = os.environ.get(ISA)
    if wanted and wanted not in there:
        raise InputError(f"{ISA} = {wanted!r} is not to be had on this processor", f"Choose of {', '.join(there)}.")
    return wanted or there[0]
