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
from sublayer.errors import CheckpointError, InputError
from sublayer.fast.decoding.runner import Runner
from sublayer.fast.engine import file as engine_file
from sublayer.fast.engine.checks import Unsound, check
from sublayer.fast.engine.decoder import EngineDecoder
from sublayer.fast.engine.file import MAGIC, EngineFile, layout, read_file, write_file
from sublayer.fast.engine.library import FORMATS
from sublayer.generation.beam import BeamSearch, beam_search, best_texts
from sublayer.generation.constraints import constraints_of
from sublayer.generation.engine_steps import EngineSteps
from sublayer.generation.greedy import greedy, greedy_texts
from sublayer.generation.loop import Step, decode
from sublayer.generation.model_steps import ModelSteps
from sublayer.generation.randomness import stream
from sublayer.generation.request import DecodeRequest, Hypothesis
from sublayer.generation.sampling import Sampler
from sublayer.hub.engine_file import lowered
from sublayer.models import DecoderOnly, EncoderDecoder
from sublayer.models.batching import padded

LENGTHS = 5, 2, 7, 5, 1
END = 1


Decodes = EncoderDecoder | DecoderOnly


def model_of(tree: config.EncoderDecoder | config.DecoderOnly, seed: int = 0) -> Decodes:
    made = build(tree, dtype=torch.float32, seed=seed)
    assert isinstance(made, EncoderDecoder | DecoderOnly)
    return made


def write(path: Path, model: Decodes, weights: str = "float32") -> Path:
    """As for a model folder, without one."""
    write_file(path, *lowered(model, weights), {"of": "a test"})
    return path


def asked(model: Decodes, seed: int) -> tuple[list[list[int]], DecodeRequest]:
    """Sources, of which a prompt may be one token less long, and leaves room in the model's positions."""
    draw = random.Random(seed)
    most, prompt = model.config.max_length, isinstance(model, DecoderOnly)
    sizes = [min(size - prompt, most) for size in LENGTHS]
    sources = [[draw.randrange(model.config.vocab_size) for _ in range(size)] for size in sizes]
    steps = [min(most - (max(sizes) if prompt else 0), 3 + row) for row in range(5)]
    return sources, DecodeRequest([0] * len(sources), frozenset({END}), steps, sources if prompt else ())


def searched(model: Decodes, path: Path, weights: Any, seed: int) -> None:
    """Assert that both ways give the same, of several sources together and of one alone."""
    runner, steps = Runner(model, weights), EngineSteps(EngineDecoder(read_file(path)))
    sources, request = asked(model, seed)
    for some, one in ((sources, request), (sources[:1], request.of(0))):
        source, lengths = padded(some, 0, torch.device("cpu"))
        with torch.inference_mode():
            expected: list[list[Hypothesis]] = greedy(runner, source, lengths, one, length_penalty=0.7)
            state = steps.start(some, num_beams=1, capacity=max(one.steps))
            assert greedy_texts(steps, state, one, length_penalty=0.7) == expected
            for beam, early in ((1, True), (3, True), (3, False)):
                options: dict[str, Any] = {"beam": beam, "length_penalty": 0.7, "early_stopping": early}
                expected = beam_search(runner, source, lengths, one, **options)
                state = steps.start(some, num_beams=beam, capacity=max(one.steps))
                search = BeamSearch(beam, 0.7, one.end_ids, early)
                assert best_texts(steps, state, search, one) == expected
        sampled(runner, steps, some, one, seed)


def sampled(runner: Runner, steps: EngineSteps, sources: list[list[int]], request: DecodeRequest, seed: int) -> None:
    """Assert that sampling under a constraint draws the same: it reads all logits."""
    constraints = constraints_of(config.Constraints(no_repeat_ngram=1), request.end_ids, runner.model.config.vocab_size)
    options: dict[str, Any] = {
        "samples": 2, "constraints": constraints, "streams": [stream(seed, row) for row in range(2 * len(sources))]
    }  # fmt: skip
    found: list[list[Step]] = []
    for own in (ModelSteps(runner, torch.device("cpu")), steps):
        with torch.inference_mode():
            state = own.start(sources, num_beams=2, capacity=max(request.steps))
            try:
                found.append([*decode(own, state, request, Sampler(config.Sampling()), **options)])
            except InputError:  # a tiny vocabulary is used up
                found.append([])
    assert found[0] == found[1]


@cache
def trees(shape: type[Any]) -> list[Any]:
    without = [tree for tree in covering(shape) if tree.embedding.convolution is None]
    return [tree.model_copy(update={"max_length": 8}) for tree in without]


@pytest.mark.parametrize("shape", [config.EncoderDecoder, config.DecoderOnly])
def test_the_engine_alone_searches_as_behind_the_modules_for_every_value_of_every_field(
    shape: type[Any], tmp_path: Path
) -> None:
    for seed, tree in enumerate(trees(shape)):
        model = model_of(tree, seed)
        searched(model, write(tmp_path / "engine.bin", model), None, seed)


TREES = twins.tree(dim=64, hidden=96, vocab_size=40), twins.language_tree()


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.kind)
@pytest.mark.parametrize("weights", FORMATS)
def test_in_every_weight_format(weights: str, tree: Any, tmp_path: Path) -> None:
    for seed in range(3):
        model = model_of(tree, seed)
        searched(model, write(tmp_path / "engine.bin", model, weights), weights, seed)


# --- files that are not what they should be ----------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "engine.bin", model_of(twins.tree(dim=32, hidden=32, vocab_size=24, max_length=9)), "int8")


@pytest.fixture
def language_path(tmp_path: Path) -> Path:
    return write(tmp_path / "language.bin", model_of(twins.language_tree(max_length=9)), "int8")


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


@pytest.mark.parametrize("which", ["path", "language_path"])
@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_header_says_the_engine_stays_within_its_memory(
    seed: int, which: str, request: pytest.FixtureRequest
) -> None:
    """What is accepted can be run: that may give other numbers, and nothing else."""
    path: Path = request.getfixturevalue(which)
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
    size = most if found.geometry.sources else most // 2
    try:
        state = alone.start([[0] * size, [0] * min(size, 1)], 0, num_beams=2, capacity=most)
        for _ in range(most if found.geometry.sources else most - size):
            alone.best([0, 0, 0, 0], state, 5)
            state.reorder([1, 1, 3, 2])
    except IndexError:  # a vocabulary with fewer tokens
        return
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
