"""Who is compared by `engine_speed.py`: a library, and a weight format in the library's own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

from gguf_models import bits

from sublayer.fast.engine.library import Unavailable, instruction_set


class StepMatrix(NamedTuple):
    """A matrix that a decoding step reads, whatever the number of rows. vocabulary: it has a row for each token."""

    rows: int
    columns: int
    vocabulary: bool = False


@dataclass(frozen=True)
class Contender:
    """library: as the workers call it. weights: as the library does."""

    library: str
    weights: str

    @property
    def package(self) -> str:
        """The distribution that it comes in."""
        return {"CTranslate2": "ctranslate2", "llama.cpp": "xllamacpp"}.get(self.library, self.library)

    @property
    def missing(self) -> str | None:
        """Why it cannot take part, where its library is not installed."""
        if find_spec(self.package) is None:
            return f"{self.package} is not installed: pip install 'sublayer[bench]'"
        return None

    @property
    def precision(self) -> str:
        """Whom it is compared with."""
        return {"F32": "float32", "Q8_0": "int8", "Q4_0": "int4", "Q4_K": "int4"}.get(self.weights, self.weights)

    def bytes_of(self, matrices: Sequence[StepMatrix]) -> float:
        """Bytes of these matrices in its format, the scales of small groups included."""
        return sum(one.rows * one.columns * self._bits(one) / 8 for one in matrices)

    def _bits(self, matrix: StepMatrix) -> float:
        if self.library == "llama.cpp":
            return bits(self.weights, matrix.columns, vocabulary=matrix.vocabulary)
        if self.weights == "int4" and matrix.vocabulary:
            return 8
        # In int4 32 numbers share a scale and a minimum of 16 bits.
        return {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 5}[self.weights]


OURS, CTRANSLATE2, LLAMA_CPP, TRANSFORMERS = "sublayer", "CTranslate2", "llama.cpp", "transformers"
LIBRARIES = (OURS, CTRANSLATE2, LLAMA_CPP, TRANSFORMERS)

CONTENDERS: Mapping[str, Contender] = {
    f"{library}, {weights}": Contender(library, weights)
    for library, formats in {
        OURS: ("float32", "int8", "int4"),
        CTRANSLATE2: ("float32", "int8"),
        LLAMA_CPP: ("F32", "Q8_0", "Q4_0", "Q4_K"),
        TRANSFORMERS: ("float32",),
    }.items()
    for weights in formats
}
EXACT = f"{OURS}, float32"
"""Whose texts the others' are compared with."""

PRECISIONS: Mapping[str, Mapping[str, str]] = {
    "float32": {OURS: "float32", CTRANSLATE2: "float32", LLAMA_CPP: "F32", TRANSFORMERS: "float32"},
    "int8": {OURS: "int8", CTRANSLATE2: "int8", LLAMA_CPP: "Q8_0"},
    "int4 and Q4_0": {OURS: "int4", LLAMA_CPP: "Q4_0"},
    "int4 and Q4_K": {OURS: "int4", LLAMA_CPP: "Q4_K"},
}
"""Whose weights are as wide: a line of the table each, with the format of each library."""


def installed() -> dict[str, str | None]:
    """The version of each library; the instructions that the engine has chosen, and that llama.cpp was built with."""
    found = {one.library: None if one.missing else version(one.package) for one in CONTENDERS.values()}
    try:
        found["sublayer's instruction set"] = instruction_set()
    except Unavailable as reason:
        found["sublayer's instruction set"] = f"none ({reason})"
    if found[LLAMA_CPP]:
        import xllamacpp

        found["llama.cpp's system info"] = str(xllamacpp.get_system_info()).strip()
    return found
