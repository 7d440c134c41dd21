"""A program: what a model computes for new tokens, as a short list of operations over buffers.

A part of a model lowers itself: beside its `forward` stands a method `lower(program, ...)` that adds the part's
operations and returns the buffer in which its result stands. So a program is made from the modules by the modules, and
whoever runs it (`engine.py`) knows no parts. A part that does not lower itself is refused by name, and its model runs
as modules.

    x = program.lower(self.norm, x)
    y = program.linear(x, self.up.weight, self.up.bias, "relu")
    program.add(x, y)

What each operation does is said in `cpp/engine.h`. A buffer is a table of float32 numbers with a row for each new
token. Operations write where nobody reads any more: buffers are placed in few tables when the program is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Code = Literal[
    "embed", "norm", "linear", "rotate", "attend", "cross", "gate", "add", "scale", "cap", "mix", "store"
]  # fmt: skip
Activation = Literal["none", "relu", "gelu", "gelu_tanh", "silu", "tanh"]


class NotLowered(Exception):
    """A part, or a value of one of its settings, is not lowered. Caught by whoever can run the modules instead."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """`width` numbers of each new token: those from `column` on of the table `number`."""

    number: int
    width: int
    column: int = 0

    def columns(self, first: int, width: int) -> Buffer:
        """`width` of these numbers, from `first` on."""
        return Buffer(self.number, width, self.column + first)


@dataclass(slots=True)
class Operation:
    """One operation. The settings have the names of the fields of `Op` in `cpp/engine.h`.

    matrices: what is multiplied by, in the order in which the operation wants them. precise: how many of them, from the
    first on, stay in float32 whatever the others are kept as.
    """

    code: Code
    source: Buffer | None
    out: Buffer
    matrices: Sequence[Tensor] = ()
    precise: int = 0
    flags: frozenset[str] = frozenset()
    activation: Activation = "none"
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Positions:
    """What the positions of a stack do to a token at each place, as tables over L places.

    added: to the embedding, [L, D]. cos, sin: of the turn of each pair of a head's first numbers, [L, pairs];
    interleaved: whether a pair stands side by side. bias: on the scores, [H, 2 L - 1], by key - query + L - 1.
    """

    length: int
    added: Tensor | None = None
    cos: Tensor | None = None
    sin: Tensor | None = None
    interleaved: bool = False
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer of a stack is told: its number; its positions; how far it sees, None for all; whether it remembers.

    causal: keys and values go to the cache, and a token sees what is before it and itself. Otherwise a token sees all
    of its text, and nothing is remembered.
    """

    index: int
    positions: Positions
    window: int | None
    causal: bool


class Program:
    """Operations in the order in which they run."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.widths: list[int] = []
        self.marks: dict[str, tuple[int, Buffer]] = {}

    def new(self, width: int) -> Buffer:
        """A buffer for something of this width."""
        self.widths.append(width)
        return Buffer(len(self.widths) - 1, width)

    def lower(self, part: nn.Module, *arguments: Any) -> Any:
        """Let `part` add its operations, and return what it returns.

        Raises:
            NotLowered: it does not say how; or it is a subclass of a part that does, and may compute something else.
        """
        if type(part) is nn.Identity:
            return arguments[0]
        lower = vars(type(part)).get("lower")
        if lower is None or "forward" in vars(part):
            raise NotLowered(f"{type(part).__name__} does not say how it is lowered")
        return lower(part, self, *arguments)

    def mark(self, name: str, x: Buffer) -> None:
        """Call what stands in x now by a name: whoever runs the program up to here may ask for it."""
        self.marks[name] = len(self.operations), x

    # --- operations ----------------------------------------------------------------------------------------------

    def embed(self, table: Tensor, scale: float, positions: Positions) -> Buffer:
        """scale * table[token] + what the positions add. Shape: table [V, D]."""
        settings = {"a": scale, "table": positions.added, "positions": positions.length}
        return self._into(self.new(table.shape[1]), "embed", None, matrices=[table], settings=settings)

    def norm(
        self, x: Buffer, weight: Tensor | None, bias: Tensor | None, eps: float, *, root_mean: bool,
        clamped: bool = False, parts: int = 1, in_place: bool = False,
    ) -> Buffer:  # fmt: skip
        """Each of `parts` equal parts of x normalized by itself. Shape: weight, bias [width / parts].

        Args:
            root_mean: RMSNorm, not LayerNorm. clamped: eps is the least that is divided by, not added to its square.
        """
        out = x if in_place else self.new(x.width)
        flags = frozenset(name for name, is_so in (("ROOT_MEAN", root_mean), ("CLAMPED", clamped)) if is_so)
        settings = {"a": eps, "parts": parts, "weight": weight, "bias": bias}
        return self._into(out, "norm", x, flags=flags, settings=settings)

    def linear(
        self, x: Buffer, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none", *,
        squared: bool = False,
    ) -> Buffer:  # fmt: skip
        """activation(x W^T + b), squared or not. Shape: weight [out, in], bias [out]."""
        if weight.shape[1] != x.width:
            raise ValueError(f"a matrix of {weight.shape[1]} columns cannot read {x.width} numbers")
        return self._into(
            self.new(weight.shape[0]), "linear", x, matrices=[weight], activation=activation,
            flags=frozenset({"SQUARED"}) if squared else frozenset(), settings={"bias": bias},
        )  # fmt: skip

    def rotate(self, x: Buffer, heads: int, head: int, positions: Positions) -> None:
        """Turn the queries or keys of `heads` heads of width `head` in place, where the positions are a turn."""
        if positions.cos is None or positions.sin is None:
            return
        self._into(
            x, "rotate", Buffer(x.number, 2 * positions.cos.shape[1], x.column),
            flags=frozenset({"INTERLEAVED"}) if positions.interleaved else frozenset(),
            settings={"heads": heads, "head": head, "table": positions.cos, "table2": positions.sin,
                      "positions": positions.length},
        )  # fmt: skip

    def attend(
        self, x: Buffer, layer: Layer, *, heads: int, groups: int, head: int, scale: float, cap: float | None
    ) -> Buffer:
        """Self-attention; x holds H queries, G keys and G values of width d side by side."""
        return self._into(
            self.new(heads * head), "attend", x, flags=frozenset({"CACHED"}) if layer.causal else frozenset(),
            settings={"heads": heads, "groups": groups, "head": head, "a": scale, "cap": cap or 0.0,
                      "layer": layer.index, "window": layer.window or 0, "table": layer.positions.bias,
                      "positions": layer.positions.length},
        )  # fmt: skip

    def cross(
        self, x: Buffer, layer: Layer, *, heads: int, groups: int, head: int, scale: float, cap: float | None
    ) -> Buffer:
        """Attention to the source; x holds H queries of width d."""
        settings = {"heads": heads, "groups": groups, "head": head, "a": scale, "cap": cap or 0.0, "layer": layer.index}
        return self._into(self.new(heads * head), "cross", x, settings=settings)

    def store(self, x: Buffer, layer: int, *, groups: int, head: int) -> None:
        """Keep x, G keys and G values of a source side by side, as what `cross` of this layer reads."""
        self._into(x, "store", x, settings={"groups": groups, "head": head, "layer": layer})

    def gate(self, x: Buffer, activation: Activation) -> Buffer:
        """activation(first half of x) * second half."""
        out = self.new(x.width // 2)
        return self._into(out, "gate", x.columns(0, out.width), activation=activation)

    def mix(
        self, x: Buffer, router: Tensor, experts: Sequence[tuple[Tensor, Tensor]], activation: Activation, *,
        active: int, normalize: bool,
    ) -> Buffer:  # fmt: skip
        """A mixture of experts. Shape: router [E, D]; of each expert gate_up [2 F, D] and down [D, F]."""
        # The router stays in float32: a rounded score would send a token elsewhere.
        return self._into(
            self.new(experts[0][1].shape[0]), "mix", Buffer(x.number, experts[0][1].shape[1], x.column),
            matrices=[router, *(matrix for pair in experts for matrix in pair)], precise=1, activation=activation,
            flags=frozenset({"NORMALIZE"}) if normalize else frozenset(),
            settings={"experts": len(experts), "active": active},
        )  # fmt: skip

    def add(self, stream: Buffer, x: Buffer) -> None:
        """stream += x. x is not to be read after."""
        last = self.operations[-1]
        if last.code == "linear" and last.out == x and last.source is not None and last.source.number != stream.number:
            # The product adds what it finds.
            last.out, last.flags = stream, last.flags | {"ACCUMULATE"}
        else:
            self._into(stream, "add", x)

    def scale(self, x: Buffer, factor: float) -> Buffer:
        """factor * x, in place."""
        return x if factor == 1.0 else self._into(x, "scale", x, settings={"a": factor})

    def cap(self, x: Buffer, cap: float | None) -> Buffer:
        """cap * tanh(x / cap), in place."""
        return x if cap is None else self._into(x, "cap", x, settings={"a": cap})

    def _into(self, out: Buffer, code: Code, source: Buffer | None, **fields: Any) -> Buffer:
        self.operations.append(Operation(code, source, out, **fields))
        return out


def placed(program: Program) -> tuple[list[int], list[int]]:
    """Place buffers in few tables: one whose last reader has run leaves its table to the next of its width.

    Returns:
        the table of each buffer, and the width of each table.
    """
    last: dict[int, int] = {}
    for time, operation in enumerate(program.operations):
        for buffer in (operation.source, operation.out):
            if buffer is not None:
                last[buffer.number] = time
    # Whoever asks for what is marked stops there, or reads it at the end.
    last.update({buffer.number: len(program.operations) for _, buffer in program.marks.values()})
    tables, widths = [-1] * len(program.widths), list[int]()
    free: dict[int, list[int]] = {}
    for time, operation in enumerate(program.operations):
        number = operation.out.number
        if tables[number] < 0:
            width = program.widths[number]
            if free.get(width):
                tables[number] = free[width].pop()
            else:
                tables[number] = len(widths)
                widths.append(width)
        for number in {buffer.number for buffer in (operation.source, operation.out) if buffer is not None}:
            if last[number] == time:
                free.setdefault(program.widths[number], []).append(tables[number])
    return tables, widths


def numbers(tensor: Tensor) -> Tensor:
    """What the engine reads of a tensor: float32 numbers side by side, without a gradient."""
    return tensor.detach().to(torch.float32).contiguous()
