"""Whether a program that a file holds stays within its own memory: the engine itself looks only at tokens.

What is checked is what `cpp/engine.h` says of each operation: that it reads and writes columns which its tables have,
numbers which its matrices and arrays have, and keys and values where there are some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sublayer.fast.engine.executable import TABLES, Executable, Matrix
from sublayer.fast.engine.library import ACTIVATIONS, CODES, FLAGS

MOST = 2**24
"""Of anything that is counted; see `config.part.LARGEST_COUNT`."""
INTEGERS = (
    "in_", "out", "column", "out_column", "width", "matrix", "parts", "heads", "groups", "head", "layer", "window",
    "experts", "active", "positions", *TABLES,
)  # fmt: skip
REALS = "a", "cap"


class Unsound(ValueError):
    """What is wrong with a program, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a decoder remembers.

    max_length: positions. vocabulary: tokens. layers, groups, width: of the cache, which has `groups` keys and values
    of this width in each layer. sources: of each layer, groups and width of the keys and values of the source; none
    where there is no encoder.
    """

    max_length: int
    vocabulary: int
    layers: int
    groups: int
    width: int
    sources: Sequence[tuple[int, int]]

    def __post_init__(self) -> None:
        numbers = (self.max_length, self.vocabulary, self.layers, self.groups, self.width)
        for number in (*numbers, *(number for pair in self.sources for number in pair)):
            _require(type(number) is int and 0 < number <= MOST, f"has a size of {number!r}")
        _require(len(self.sources) in (0, self.layers), "has sources for other layers than it has")


def check(program: Executable, geometry: Geometry, *, decodes: bool) -> None:
    """Raise `Unsound` where running the program could read or write what is not its own.

    Args:
        decodes: it is run with a cache and a source, which it reads; else it reads a source and keeps it.
    """
    _require(0 < len(program.widths) <= MOST, "has no tables")
    for width in program.widths:
        _require(type(width) is int and 0 < width <= MOST, f"has a table of width {width!r}")
    first_written: dict[int, int] = {}
    for number, operation in enumerate(program.operations):
        _Operation(program, geometry, operation, decodes).check()
        first_written.setdefault(operation["out"], number)
    for name, mark in program.marks.items():
        fine = all(type(each) is int for each in (mark.count, mark.table, mark.width))
        fine = fine and 0 < mark.count <= len(program.operations) and first_written.get(mark.table, MOST) < mark.count
        _require(fine and mark.width == program.widths[mark.table], f"has a mark {name!r} where nothing stands")


class _Operation:
    def __init__(self, program: Executable, geometry: Geometry, fields: Mapping[str, Any], decodes: bool) -> None:
        self.program, self.geometry, self.fields, self.decodes = program, geometry, fields, decodes
        known = {"code", "flags", "activation", *INTEGERS, *REALS}
        _require(fields.keys() <= known, f"has an operation with {sorted(fields.keys() - known)}")
        _require(fields.get("code") in CODES, f"has an operation {fields.get('code')!r}")
        _require(fields.get("activation") in ACTIVATIONS, f"has an activation {fields.get('activation')!r}")
        flags: Any = fields.get("flags")
        named = isinstance(flags, list) and all(flag in FLAGS for flag in cast("list[Any]", flags))
        _require(named, f"has flags {flags!r}")
        for name in INTEGERS:
            value = fields.get(name, 0)
            _require(type(value) is int and 0 <= value <= MOST, f"has {name} = {value!r}")
        for name in REALS:
            value = fields.get(name, 0.0)
            _require(type(value) in (int, float) and math.isfinite(value), f"has {name} = {value!r}")
        tables = range(len(program.widths))
        _require(self["in_"] in tables and self["out"] in tables, "has an operation between tables that are not there")

    def __getitem__(self, name: str) -> int:
        return self.fields.get(name, 0)

    def check(self) -> None:
        checks: Mapping[str, Callable[[], None]] = {
            "embed": self._embed,
            "norm": self._norm,
            "linear": self._linear,
            "rotate": self._rotate,
            "attend": self._attend,
            "cross": self._cross,
            "gate": self._gate,
            "mix": self._mix,
            "store": self._store,
            **dict.fromkeys(("add", "scale", "cap"), self._same),
        }
        checks[self.fields["code"]]()

    # --- what it reads and writes ---------------------------------------------------------------------------------

    def _reads(self, count: int) -> None:
        _require(self["column"] + count <= self.program.widths[self["in_"]], "reads past a table")

    def _writes(self, count: int) -> None:
        _require(self["out_column"] + count <= self.program.widths[self["out"]], "writes past a table")

    def _matrix(self, place: int = 0) -> Matrix:
        number = self["matrix"] + place
        _require(number < len(self.program.matrices), "has a product with a matrix that is not there")
        return self.program.matrices[number]

    def _array(self, name: str, size: int, *, optional: bool = True) -> None:
        number: int | None = self.fields.get(name)
        if number is None:
            _require(optional, f"has an operation without its {name}")
            return
        _require(number < len(self.program.arrays), f"has a {name} that is not there")
        found = self.program.arrays[number].size
        _require(found == size, f"has a {name} of {found} numbers and not {size}")

    def _nowhere(self, *names: str) -> None:
        for name in names:
            _require(self.fields.get(name) is None, f"has an operation with a {name}")

    # --- each operation -------------------------------------------------------------------------------------------

    def _embed(self) -> None:
        matrix = self._matrix()
        self._writes(matrix.columns)
        self._reaches("table", matrix.columns, self["positions"])

    def _norm(self) -> None:
        width, parts = self["width"], self["parts"]
        _require(parts > 0 and width > 0 and width % parts == 0, f"has a norm of {width} numbers in {parts} parts")
        self._reads(width)
        self._writes(width)
        self._array("weight", width // parts)
        self._array("bias", width // parts)

    def _linear(self) -> None:
        matrix = self._matrix()
        _require(matrix.columns == self["width"], f"multiplies {self['width']} numbers by {matrix.columns}")
        self._reads(matrix.columns)
        self._writes(matrix.out)
        self._array("bias", matrix.out)

    def _rotate(self) -> None:
        width, heads, head = self["width"], self["heads"], self["head"]
        _require(0 < width <= head and width % 2 == 0, f"turns {width} of the {head} numbers of a head")
        self._reads(heads * head)
        _require(self["in_"] == self["out"], "turns one table into another")
        for name in ("table", "table2"):
            self._reaches(name, width // 2, self["positions"], optional=False)

    def _attend(self) -> None:
        heads, groups, head = self._heads()
        self._reads((heads + 2 * groups) * head)
        self._writes(heads * head)
        _require(("CACHED" in self.fields["flags"]) == self.decodes, "attends to what is not there")
        if self.decodes:
            g = self.geometry
            fits = self["layer"] < g.layers and (groups, head) == (g.groups, g.width)
            _require(fits, "attends to a cache of another form")
        # The scores' biases go by distance, to either side.
        if self.fields.get("table") is not None:
            self._reaches("table", 1, self["positions"], size=heads * (2 * self["positions"] - 1))

    def _cross(self) -> None:
        heads, groups, head = self._heads()
        self._reads(heads * head)
        self._writes(heads * head)
        self._of_source(groups, head, reads=True)
        self._nowhere("table")

    def _store(self) -> None:
        groups, head = self["groups"], self["head"]
        self._reads(2 * groups * head)
        self._of_source(groups, head, reads=False)

    def _gate(self) -> None:
        self._reads(2 * self["width"])
        self._writes(self["width"])

    def _same(self) -> None:
        self._reads(self["width"])
        self._writes(self["width"])

    def _mix(self) -> None:
        experts, active, width = self["experts"], self["active"], self["width"]
        _require(0 < active <= experts, f"has {active} active of {experts} experts")
        router = self._matrix()
        _require(router.out == experts, f"has a router of {router.out} experts and not {experts}")
        self._reads(router.columns)
        out = self._matrix(2).out
        self._writes(out)
        for expert in range(experts):
            up, down = self._matrix(1 + 2 * expert), self._matrix(2 + 2 * expert)
            fits = (up.out, up.columns, down.out, down.columns) == (2 * width, router.columns, out, width)
            _require(fits, "has an expert of another size")

    # --- what several have in common ------------------------------------------------------------------------------

    def _heads(self) -> tuple[int, int, int]:
        heads, groups, head = self["heads"], self["groups"], self["head"]
        _require(
            heads > 0 and groups > 0 and head > 0 and heads % groups == 0, f"shares {groups} keys among {heads} heads"
        )
        return heads, groups, head

    def _of_source(self, groups: int, head: int, *, reads: bool) -> None:
        _require(self.decodes == reads, "reads or keeps a source where there is none")
        sources = self.geometry.sources
        fits = self["layer"] < len(sources) and tuple(sources[self["layer"]]) == (groups, head)
        _require(fits, "has a source of another form")

    def _reaches(self, name: str, each: int, positions: int, *, optional: bool = True, size: int | None = None) -> None:
        """An array over positions goes as far as texts may."""
        self._array(name, positions * each if size is None else size, optional=optional)
        if self.fields.get(name) is not None:
            _require(positions >= self.geometry.max_length, f"has a {name} for {positions} positions")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Unsound(what)
