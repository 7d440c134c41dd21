"""The engine alone, from its file, searches as it does behind the modules: the same tokens and scores, to the bit.

And a file that is damaged, or that somebody has made to do harm, is refused before it is run.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import twins
from config.covering import covering
from laws.models import build
from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.fast.decoding.runner import Runner
from sublayer.fast.engine import file as engine_file
from sublayer.fast.engine.checks import Geometry, Unsound, check
from sublayer.fast.engine.decoder import EngineDecoder
from sublayer.fast.engine.file import MAGIC, EngineFile, layout, read_file, write_file
from sublayer.fast.engine.library import FORMATS
from sublayer.fast.engine.packing import Matrices, executable
from sublayer.generation.batch import Batch
from sublayer.generation.beam import BeamSearch, beam_search, best_texts
from sublayer.generation.engine_steps import EngineSteps
from sublayer.generation.greedy import greedy, greedy_texts
from sublayer.generation.request import DecodeRequest, Hypothesis
from sublayer.models import EncoderDecoder
from sublayer.models.batching import padded

LENGTHS = 5, 2, 7, 5, 1
END = 1


def model_of(tree: config.EncoderDecoder, seed: int = 0) -> EncoderDecoder:
    made = build(tree, dtype=torch.float32, seed=seed)
    assert isinstance(made, EncoderDecoder)
    return made


def write(path: Path, model: EncoderDecoder, weights: str = "float32") -> Path:
    """As `hub/engine_file.py` does, without a model folder."""
    decoder, matrices = model.decoder, Matrices(weights)
    crosses = [decoder.cross_attention(index) for index in range(len(decoder.layers))]
    geometry = Geometry(
        model.config.max_length,
        model.config.vocab_size,
        len(decoder.layers),
        decoder.cache_heads,
        decoder.cache_width,
        tuple((cross.groups, cross.width) for cross in crosses),
    )
    with torch.no_grad():
        programs = {name: executable(lowered, matrices) for name, lowered in _lowered(model).items()}
    write_file(path, programs, geometry, {"of": "a test"})
    return path


def _lowered(model: EncoderDecoder) -> dict[str, Any]:
    return {"decoding": model.lower(), "encoding": model.lower_encoder()}


def asked(model: EncoderDecoder, seed: int) -> tuple[list[list[int]], DecodeRequest]:
    draw = random.Random(seed)
    most = model.config.max_length
    sources = [[draw.randrange(model.config.vocab_size) for _ in range(min(size, most))] for size in LENGTHS]
    return sources, DecodeRequest([0] * len(sources), frozenset({END}), [min(most, 3 + row) for row in range(5)])


def searched(model: EncoderDecoder, path: Path, weights: Any, seed: int) -> None:
    """Assert that both ways give the same, of several sources together and of one alone."""
    runner, alone = Runner(model, weights), EngineDecoder(read_file(path))
    sources, request = asked(model, seed)
    for some, one in ((sources, request), (sources[:1], request.of(0))):
        source, lengths = padded(some, 0, torch.device("cpu"))
        with torch.inference_mode():
            expected: list[list[Hypothesis]] = greedy(runner, source, lengths, one, length_penalty=0.7)
            state = alone.start(some, 0, num_beams=1, capacity=max(one.steps))
            assert greedy_texts(Batch(EngineSteps(alone)), state, one, length_penalty=0.7) == expected
            for beam, early in ((1, True), (3, True), (3, False)):
                options: dict[str, Any] = {"beam": beam, "length_penalty": 0.7, "early_stopping": early}
                expected = beam_search(runner, source, lengths, one, **options)
                state = alone.start(some, 0, num_beams=beam, capacity=max(one.steps))
                search = BeamSearch(beam, 0.7, one.end_ids, early)
                assert best_texts(Batch(EngineSteps(alone), rows=beam), state, search, one) == expected


@cache
def trees() -> list[Any]:
    without = [tree for tree in covering(config.EncoderDecoder) if tree.embedding.convolution is None]
    return [tree.model_copy(update={"max_length": 8}) for tree in without]


def test_the_engine_alone_searches_as_behind_the_modules_for_every_value_of_every_field(tmp_path: Path) -> None:
    for seed, tree in enumerate(trees()):
        model = model_of(tree, seed)
        searched(model, write(tmp_path / "engine.bin", model), None, seed)


@pytest.mark.parametrize("weights", FORMATS)
def test_in_every_weight_format(weights: str, tmp_path: Path) -> None:
    for seed in range(3):
        model = model_of(twins.tree(dim=64, hidden=96, vocab_size=40), seed)
        searched(model, write(tmp_path / "engine.bin", model, weights), weights, seed)


# --- files that are not what they should be ----------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "engine.bin", model_of(twins.tree(dim=32, hidden=32, vocab_size=24, max_length=9)), "int8")


def header_of(path: Path) -> dict[str, Any]:
    held = path.read_bytes()
    begin = len(MAGIC) + 8
    return json.loads(held[begin : begin + int.from_bytes(held[len(MAGIC) : begin], "little")])


def with_header(path: Path, header: dict[str, Any]) -> None:
    held = path.read_bytes()
    begin = len(MAGIC) + 8
    first = -(-(begin + int.from_bytes(held[len(MAGIC) : begin], "little")) // 4096) * 4096
    told = json.dumps(header).encode()
    new = MAGIC + len(told).to_bytes(8, "little") + told
    path.write_bytes(new.ljust(-(-len(new) // 4096) * 4096, b"\0") + held[first:])


def test_what_was_written_is_read(path: Path) -> None:
    found = read_file(path)
    assert found.about == {"of": "a test"}
    assert (found.geometry.max_length, found.geometry.vocabulary, found.geometry.layers) == (9, 24, 2)
    # Mapped: nobody may write to it.
    assert not any(matrix.data.flags.writeable for matrix in found.programs["decoding"].matrices)


def test_every_beginning_of_a_file_is_refused(path: Path) -> None:
    held = path.read_bytes()
    for size in (0, 1, len(MAGIC), len(MAGIC) + 8, 300, 4096, len(held) // 2, len(held) - 64):
        path.write_bytes(held[:size])
        with pytest.raises(CheckpointError, match=r"engine\.bin .*Remove it: it is made anew"):
            read_file(path)


def test_a_file_of_another_layout_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = header_of(path)
    assert header["layout"] == layout()
    with_header(path, header | {"layout": "0" * 64})
    with pytest.raises(CheckpointError, match="was made for another version of the engine"):
        read_file(path)
    # What the library makes of a known matrix is what counts: nobody has to number the layouts.
    plain = engine_file.packed
    monkeypatch.setattr(engine_file, "packed", lambda numbers, kept_as: plain(numbers[::-1].copy(), kept_as))
    assert layout.__wrapped__() != layout()


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("embed", "out_column", 1),
        ("embed", "positions", 8),
        ("norm", "width", 64),
        ("norm", "parts", 0),
        ("linear", "matrix", 10**6),
        ("linear", "column", 16),
        ("linear", "out", 10**6),
        ("linear", "in_", -1),
        ("linear", "bias", 10**6),
        ("attend", "heads", 64),
        ("attend", "groups", 3),
        ("attend", "layer", 2),
        ("cross", "layer", 2),
        ("cross", "head", 2**24),
        ("attend", "flags", []),
        ("attend", "flags", ["NOTHING"]),
        ("linear", "width", 2.5),
        ("linear", "activation", "system"),
        ("linear", "code", "open"),
        ("linear", "code", "attend"),
        ("norm", "a", float("nan")),
        ("norm", "weight", True),
        ("norm", "anything", 1),
    ],
)
def test_an_operation_that_leaves_its_memory_is_refused(code: str, name: str, value: Any, path: Path) -> None:
    header = header_of(path)
    operation = next(one for one in header["programs"]["decoding"]["operations"] if one["code"] == code)
    operation[name] = value
    with_header(path, header)
    with pytest.raises(CheckpointError):
        read_file(path)


def test_programs_in_each_others_places_are_refused(path: Path) -> None:
    header = header_of(path)
    programs = header["programs"]
    with_header(path, header | {"programs": {"decoding": programs["encoding"], "encoding": programs["decoding"]}})
    with pytest.raises(CheckpointError):
        read_file(path)


def _places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, each in inside for place in _places(each, (*before, key))] or [before]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_header_says_the_engine_stays_within_its_memory(seed: int, path: Path) -> None:
    """What is accepted can be run: that may give other numbers, and nothing else."""
    header, draw = header_of(path), random.Random(seed)
    places = _places({name: header[name] for name in ("geometry", "programs", "matrices", "arrays")})
    accepted = 0
    for _ in range(250):
        changed = json.loads(json.dumps(header))
        for place in draw.sample(places, draw.choice((1, 1, 1, 2))):
            at = changed
            for key in place[:-1]:
                at = at[key]
            old = at[place[-1]]
            near = [old + 1, old - 1, 2 * old, 0] if type(old) is int else []
            at[place[-1]] = draw.choice(
                [*near, 0, 1, 2, 3, 4, 16, 31, 33, 64, -1, 2**24, 2**31, 2**62, None, "x", 0.5, []]
            )
        with_header(path, changed)
        try:
            found = read_file(path)
        except CheckpointError:
            continue
        accepted += 1
        run(found)
    assert accepted  # else nothing was seen


def run(found: EngineFile) -> None:
    if max(found.geometry.max_length, found.geometry.vocabulary, *found.programs["decoding"].widths) > 2**16:
        return
    alone, most = EngineDecoder(found), min(found.geometry.max_length, 9)
    state = alone.start([[0] * most, [0]], 0, num_beams=2, capacity=most)
    for _ in range(most):
        try:
            alone.best([0, 0, 0, 0], state, 5)
        except IndexError:  # a vocabulary with fewer tokens
            return
        state.reorder([1, 1, 3, 2])
    state.keep([1])


def test_a_cache_takes_no_more_tokens_than_it_has_room_for(path: Path) -> None:
    alone = EngineDecoder(read_file(path))
    state = alone.start([[2, 3]], 0, num_beams=1, capacity=2)
    alone.best([0], state, 1)
    alone.best([0], state, 1)
    with pytest.raises(ValueError, match="1 tokens after 2"):
        alone.best([0], state, 1)
    with pytest.raises(ValueError, match="1 rows of 2"):
        alone.best([0, 0], state, 1)
    with pytest.raises(ValueError, match="10 tokens, and the model 9 positions"):
        alone.start([[2] * 10], 0, num_beams=1, capacity=2)
    with pytest.raises(IndexError):
        alone.start([[24]], 0, num_beams=1, capacity=2)


def test_a_mark_stands_where_something_was_written(path: Path) -> None:
    found = read_file(path)
    program = found.programs["decoding"]
    mark = program.marks["logits"]
    for wrong in ((0, mark.table, mark.width), (mark.count, mark.table, mark.width + 1), (1, mark.table, mark.width)):
        marks = {"logits": type(mark)(*wrong)}
        with pytest.raises(Unsound, match="mark 'logits'"):
            check(
                type(program)(program.operations, program.matrices, program.arrays, program.widths, marks),
                found.geometry,
                decodes=True,
            )
