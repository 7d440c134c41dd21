"""A model that the engine runs alone, from its file: the step contract over numpy, without torch.

What a step computes is what `fast/decoding/runner.py` has the engine compute, to the bit; the state keeps the same
arrays (`nn/cache.py`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sublayer.fast.engine.engine import Addresses, Engine, addresses_of
from sublayer.fast.engine.executable import Matrix, taken
from sublayer.fast.engine.file import EngineFile, read_file
from sublayer.fast.engine.library import CShortlist
from sublayer.fast.engine.threads import threads

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Listed:
    """The tokens that may come, of which each sentence has its own.

    Args:
        tokens: sorted, [C]. allowed: whether each may come in a sentence, [B, C]. matrix, bias: their rows of the last
            product's.
    """

    def __init__(self, tokens: Integers, allowed: NDArray[np.bool_], matrix: Matrix, bias: Floats | None) -> None:
        self.tokens, self._allowed, self._matrix, self._bias = tokens, allowed, matrix, bias
        self._counts = allowed.sum(axis=1, dtype=np.int64)
        self._choices = np.zeros((len(allowed), int(self._counts.max())), np.int32)
        self._choices[np.arange(self._choices.shape[1]) < self._counts[:, None]] = np.nonzero(allowed)[1]
        self._struct = CShortlist(
            ctypes.pointer(matrix.struct),
            None if bias is None else bias.ctypes.data,
            self._choices.shape[1],
            self._choices.ctypes.data,
            self._counts.ctypes.data,
        )

    @property
    def address(self) -> int:
        """Of what C++ reads, while this lives."""
        return ctypes.addressof(self._struct)

    def keep(self, sentences: Sequence[int]) -> Listed:
        """That of some sentences."""
        return Listed(self.tokens, self._allowed[list(sentences)], self._matrix, self._bias)


class EngineState:
    """What is remembered between two steps; see `DecoderState`.

    cache: [layers, 2, B * num_beams, G, C, d]. rows: in which row of the cache each position of a row stands, [R, C];
    None where sentences have one row, and all stand in their own. memory: keys, then values, of each layer's source,
    [B, G, S, d]; empty where there is no encoder. lengths: of the sources, [B]; None where all are as long as the
    longest. padding: how many tokens before the first real one of each row, [R]; None for none. listed: the tokens that
    may come; None for all.
    """

    def __init__(
        self, cache: Floats, num_beams: int, *, memory: Sequence[Floats] = (), lengths: Integers | None = None,
        padding: Integers | None = None, listed: Listed | None = None,
    ) -> None:  # fmt: skip
        self.cache, self.num_beams, self.memory, self.lengths = cache, num_beams, memory, lengths
        self.padding, self.listed = padding, listed
        self.length = 0
        self.rows = np.zeros((cache.shape[2], cache.shape[4]), np.int32) if num_beams > 1 else None
        self._look()

    def expand(self, num_beams: int) -> None:
        """Go on with so many rows a sentence, which begin alike; there is one."""
        if num_beams > 1:
            self.cache = np.repeat(self.cache, num_beams, axis=2)
            self.padding = None if self.padding is None else np.repeat(self.padding, num_beams)
            self.num_beams = num_beams
            own = np.arange(self.cache.shape[2], dtype=np.int32)[:, None]
            self.rows = np.repeat(own, self.cache.shape[4], axis=1)
            self._look()

    def reorder(self, rows: Sequence[int]) -> None:
        """Row i goes on from what row `rows[i]` was; both must belong to the same sentence."""
        assert self.rows is not None
        self.rows = np.take(self.rows, rows, axis=0)
        self._look()

    def keep(self, sentences: Sequence[int]) -> None:
        """Go on with these sentences only."""
        rows = [sentence * self.num_beams + each for sentence in sentences for each in range(self.num_beams)]
        # `take` lays out what it takes side by side, which an index in brackets need not.
        self.cache = np.take(self.cache, rows, axis=2)
        if self.rows is not None:
            moved = np.array(rows, np.int32) - np.arange(len(rows), dtype=np.int32)
            self.rows = np.take(self.rows, rows, axis=0) - moved[:, None]
        self.padding = None if self.padding is None else np.take(self.padding, rows)
        self.memory = [np.take(part, sentences, axis=0) for part in self.memory]
        self.lengths = None if self.lengths is None else np.take(self.lengths, sentences)
        self.listed = None if self.listed is None else self.listed.keep(sentences)
        self._look()

    @property
    def addresses(self) -> Addresses:
        """Where the next step reads and writes."""
        if self.rows is not None:
            self.rows[:, self.length] = np.arange(len(self.rows), dtype=np.int32)
        self._addresses.held = self.length
        return self._addresses

    def _look(self) -> None:
        self._pointers = addresses_of([part.ctypes.data for part in self.memory])
        self._addresses = Addresses(
            cache=self.cache.ctypes.data,
            cache_rows=_address(self.rows),
            capacity=self.cache.shape[4],
            padding=_address(self.padding),
            memory=ctypes.addressof(self._pointers),
            sources=self.memory[0].shape[0] if self.memory else 0,
            source_length=self.memory[0].shape[2] if self.memory else 0,
            source_lengths=_address(self.lengths),
        )


class EngineDecoder:
    """Runs the programs of a file.

    Raises:
        Unavailable: there is no engine here. InputError: the instruction set that is asked for is not to be had.
    """

    def __init__(self, file: EngineFile) -> None:
        self.file, self.geometry = file, file.geometry
        self._make_engines()

    def __reduce__(self) -> tuple[Callable[[Path], EngineDecoder], tuple[Path]]:
        # What is mapped is not copied but mapped again.
        return _from, (self.file.path,)

    def _make_engines(self) -> None:
        self.threads = threads()
        self._decoding = Engine(self.file.programs["decoding"], self.threads)
        encoding = self.file.programs.get("encoding")
        self._encoding = None if encoding is None else Engine(encoding, self.threads)

    def start(
        self, sources: Sequence[Sequence[int]], pad: int, *, num_beams: int, capacity: int,
        listed: tuple[Integers, NDArray[np.bool_]] | None = None,
    ) -> EngineState:  # fmt: skip
        """Read the sources, or prompts without their last tokens, and begin. None is longer than the model's positions.

        Args:
            pad: a token to fill up shorter ones. capacity: tokens that will be fed at most. listed: the tokens that may
                come, sorted, [C], and whether each may in what follows a source, [B, C]; of an encoder-decoder.
        """
        if self.threads != threads():
            self._make_engines()
        g, size = self.geometry, max(map(len, sources))
        least, most = (1, g.max_length) if g.sources else (0, g.max_length - 1)
        if not least <= min(map(len, sources)) <= size <= most:
            raise ValueError(f"a source has {size} tokens, and the model {g.max_length} positions")
        if self._encoding is None:
            return self._after(sources, pad, num_beams, min(capacity, g.max_length - size))
        return self._beside(self._encoding, sources, pad, num_beams, min(capacity, g.max_length), listed)

    def _after(self, prompts: Sequence[Sequence[int]], pad: int, num_beams: int, capacity: int) -> EngineState:
        """Go on from prompts, the shorter of which are padded on the left."""
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        size = int(lengths.max())
        tokens = np.full((len(prompts), size), pad, np.int64)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[size - len(prompt) :] = prompt
        # Equal lengths need no mask.
        padding = size - lengths if lengths.min() < size else None
        state = EngineState(self._cache(len(prompts), size + capacity), 1, padding=padding)
        if size:
            self._decoding.call(tokens.ctypes.data, len(prompts), size, "hidden", state.addresses)
            state.length = size
        state.expand(num_beams)
        return state

    def _beside(
        self, encoding: Engine, sources: Sequence[Sequence[int]], pad: int, num_beams: int, capacity: int,
        listed: tuple[Integers, NDArray[np.bool_]] | None,
    ) -> EngineState:  # fmt: skip
        """Have the sources read by an encoder."""
        g, count, size = self.geometry, len(sources), max(map(len, sources))
        tokens = np.full((count, size), pad, np.int64)
        for row, source in zip(tokens, sources, strict=True):
            row[: len(source)] = source
        lengths = np.array([len(source) for source in sources], np.int64)
        # Equal lengths need no mask.
        ragged = lengths if lengths.min() < size else None
        memory = [np.empty((count, groups, size, width), np.float32) for groups, width in g.sources for _ in range(2)]
        pointers = addresses_of([part.ctypes.data for part in memory])
        given = Addresses(
            lengths=_address(ragged),
            memory=ctypes.addressof(pointers),
            sources=count,
            source_length=size,
        )
        encoding.call(tokens.ctypes.data, count, size, None, given)
        some = None if listed is None else self._listed(*listed)
        cache = self._cache(count * num_beams, capacity)
        return EngineState(cache, num_beams, memory=memory, lengths=ragged, listed=some)

    def _cache(self, rows: int, capacity: int) -> Floats:
        g = self.geometry
        return np.empty((g.layers, 2, rows, g.groups, capacity, g.width), np.float32)

    @property
    def lists(self) -> bool:
        """Whether a shortlist of tokens can be given: the scores are a product as it is, not capped or scaled."""
        program = self.file.programs["decoding"]
        return program.operations[program.marks["logits"].count - 1]["code"] == "linear"

    def _listed(self, tokens: Integers, allowed: NDArray[np.bool_]) -> Listed:
        program = self.file.programs["decoding"]
        last = program.operations[program.marks["logits"].count - 1]
        place: int = last["matrix"]
        biases: int | None = last.get("bias")
        bias = None if biases is None else np.take(program.arrays[biases], tokens)
        return Listed(tokens, allowed, taken(program.matrices[place], tokens), bias)

    def best(self, tokens: Sequence[int], state: EngineState, count: int) -> tuple[Floats, Integers]:
        """Feed a token a row; what may follow.

        Shape: -> the log-probabilities [R, count] of the most probable tokens, largest first, and the tokens.
        """
        listed, count = state.listed, min(count, self.geometry.vocabulary)
        logs, places = np.empty((len(tokens), count), np.float32), np.empty((len(tokens), count), np.int64)
        self._step(
            tokens, state, best=count, best_columns=places.ctypes.data, best_logs=logs.ctypes.data,
            shortlist=None if listed is None else listed.address,
        )  # fmt: skip
        return logs, places if listed is None else listed.tokens[places]

    def logits(self, tokens: Sequence[int], state: EngineState) -> Floats:
        """Feed a token a row, of a state without a list of tokens. Shape: -> logits [R, V]."""
        logits = np.empty((len(tokens), self.geometry.vocabulary), np.float32)
        self._step(tokens, state, out=logits.ctypes.data)
        return logits

    def _step(self, tokens: Sequence[int], state: EngineState, **results: int | None) -> None:
        fed, rows, capacity = np.array(tokens, np.int64), state.cache.shape[2], state.cache.shape[4]
        if len(fed) != rows or state.length >= capacity:
            raise ValueError(f"{len(fed)} tokens after {state.length}, and the cache has {rows} rows of {capacity}")
        self._decoding.call(fed.ctypes.data, rows, 1, "logits", state.addresses, **results)  # pyright: ignore[reportArgumentType]
        state.length += 1


def _address(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


def _from(path: Path) -> EngineDecoder:
    return EngineDecoder(read_file(path))
