"""A vocabulary shortlist: IBM Model 1 by its definition, and a search that knows no other tokens."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import twins
from fast.engine.test_engine_file import asked, model_of, write
from sublayer.data.encoding import Ragged
from sublayer.errors import CheckpointError
from sublayer.fast.decoding.runner import Runner
from sublayer.fast.engine.decoder import EngineDecoder
from sublayer.fast.engine.executable import Matrix, packed, taken
from sublayer.fast.engine.file import read_file
from sublayer.fast.engine.library import FORMATS, library
from sublayer.generation import shortlist
from sublayer.generation.beam import BeamSearch, best_texts
from sublayer.generation.engine_steps import EngineSteps
from sublayer.generation.greedy import greedy_texts
from sublayer.generation.shortlist import FILE, Shortlist, build, read_shortlist, write_shortlist
from sublayer.models.batching import padded

VOCABULARY = 40
texts = st.lists(
    st.tuples(st.lists(st.integers(0, 7), max_size=5), st.lists(st.integers(0, 7), max_size=5)), min_size=1, max_size=8
)


def by_definition(pairs: list[tuple[list[int], list[int]]]) -> dict[tuple[int, int], float]:
    """Expectation and maximization over every possible link, one at a time."""
    share: dict[tuple[int, int], float] = defaultdict(lambda: 1.0)
    for _ in range(shortlist.ITERATIONS):
        expected: dict[tuple[int, int], float] = defaultdict(float)
        for source, target in pairs:
            for one in target:
                total = sum(share[each, one] for each in source)
                for each in source:
                    expected[each, one] += share[each, one] / total
        totals: dict[int, float] = defaultdict(float)
        for (each, _), count in expected.items():
            totals[each] += count
        share = defaultdict(float, {pair: count / totals[pair[0]] for pair, count in expected.items()})
    return share


@settings(deadline=None)
@given(texts, st.integers(1, 4), st.integers(0, 5), st.integers(1, 30))
def test_candidates_are_the_most_probable_by_ibm_model_1(
    pairs: list[tuple[list[int], list[int]]], each: int, frequent: int, at_once: int
) -> None:
    sources, targets = (Ragged.of([pair[side] for pair in pairs]) for side in (0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortlist, "AT_ONCE", at_once)
        found = build(
            (sources.tokens, sources.starts), (targets.tokens, targets.starts), 8, "", each=each, frequent=frequent
        )
    share = by_definition(pairs)
    for token in range(8):
        own = [one for one in found.candidates[token].tolist() if one != shortlist.NONE]
        known = {target: value for (source, target), value in share.items() if source == token}
        assert len(own) == min(each, len(known))
        # What is kept is as probable as anything that is not.
        left = [value for target, value in known.items() if target not in own]
        assert not own or not left or min(known[one] for one in own) >= max(left) - 1e-9
    counts = np.bincount(targets.tokens, minlength=8)
    assert len(found.always) == min(frequent, int((counts > 0).sum()))
    others = [counts[token] for token in range(8) if token not in found.always]
    assert not len(found.always) or counts[found.always].min() >= max(others, default=0)


def test_a_source_has_its_own_candidates_the_frequent_tokens_and_the_ends() -> None:
    listed = Shortlist(np.array([3, 5], np.int32), np.array([[7, -1], [2, 3], *[[-1, -1]] * 6], np.int32), "")
    tokens, allowed = listed.of([[0, 2], [1, 1]], [1])
    assert tokens.tolist() == [1, 2, 3, 5, 7]
    assert tokens[allowed[0]].tolist() == [1, 3, 5, 7]
    assert tokens[allowed[1]].tolist() == [1, 2, 3, 5]


# --- the engine ----------------------------------------------------------------------------------------------------


def unpacked(matrix: Matrix) -> NDArray[np.float32]:
    found = np.full((matrix.out, matrix.columns), np.nan, np.float32)
    library().matrix_unpack(ctypes.byref(matrix.struct), found.ctypes.data)
    return found


@pytest.mark.parametrize("kept_as", FORMATS)
@pytest.mark.parametrize("columns", [32, 96, 256])
def test_rows_are_taken_out_of_a_packed_matrix_as_they_are(kept_as: str, columns: int) -> None:
    numbers = np.random.default_rng(columns).standard_normal((70, columns)).astype(np.float32)
    rows = np.array([69, 0, 17, 3, 3, 16, 15, 33, 40, 41, 42, 43, 44, 45, 46, 47, 1], np.int64)
    matrix = packed(numbers, kept_as)
    assert np.array_equal(unpacked(taken(matrix, rows)), unpacked(matrix)[rows])


@pytest.fixture(scope="module", params=["float32", "int8"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Runner, EngineDecoder]:
    model = model_of(twins.tree(dim=64, hidden=96, vocab_size=VOCABULARY), 3)
    path = write(tmp_path_factory.mktemp("engine") / "engine.bin", model, request.param)
    return model, Runner(model, request.param), EngineDecoder(read_file(path))


def some_of(sources: list[list[int]], seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Tokens that may come, of each source others; the end always."""
    allowed = np.random.default_rng(seed).random((len(sources), VOCABULARY)) < 0.4
    allowed[:, 1] = True
    tokens = np.flatnonzero(allowed.any(axis=0))
    return tokens, allowed[:, tokens]


def test_a_step_gives_the_softmax_over_what_may_come(both: tuple[Any, Runner, EngineDecoder]) -> None:
    model, runner, alone = both
    sources, _ = asked(model, 5)
    tokens, allowed = some_of(sources, 1)
    source, lengths = padded(sources, 0, torch.device("cpu"))
    with torch.inference_mode():
        theirs = runner.start(source, lengths, num_beams=2, capacity=4)
        ours = alone.start(sources, 0, num_beams=2, capacity=4, listed=(tokens, allowed))
        may = torch.zeros(10, VOCABULARY, dtype=torch.bool)
        may[:, tokens] = torch.from_numpy(allowed.repeat(2, axis=0))
        for fed in ([4] * 10, list(range(10, 20))):
            logits = runner.step(torch.tensor(fed).unsqueeze(1), theirs)[:, -1].masked_fill(~may, float("-inf"))
            expected = logits.double().log_softmax(-1)
            logs, places = alone.best(fed, ours, 6)
            top, _ = expected.topk(6)
            assert torch.from_numpy(logs).double().sub(top).abs().max() < 1e-5
            assert torch.equal(expected.gather(1, torch.from_numpy(places)), top) or torch.allclose(
                expected.gather(1, torch.from_numpy(places)), top, atol=1e-6
            )


def hypotheses(alone: EngineDecoder, sources: Any, request: Any, beam: int, listed: Any) -> Any:
    state = alone.start(sources, 0, num_beams=beam, capacity=max(request.steps), listed=listed)
    if beam == 1:
        return greedy_texts(EngineSteps(alone), state, request, length_penalty=0.7)
    search = BeamSearch(beam, 0.7, request.end_ids, True)
    return best_texts(EngineSteps(alone), state, search, request)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_sentence_in_company_is_translated_as_alone_and_of_its_own_tokens(
    both: tuple[Any, Runner, EngineDecoder], beam: int
) -> None:
    model, _, alone = both
    sources, request = asked(model, 6)
    tokens, allowed = some_of(sources, 2)
    together = hypotheses(alone, sources, request, beam, (tokens, allowed))
    for row, source in enumerate(sources):
        own = tokens[allowed[row]]
        single = hypotheses(alone, [source], request.of(row), beam, (own, np.ones((1, len(own)), np.bool_)))
        assert single == [together[row]]
        assert {token for one in together[row] for token in one.tokens} <= set(own.tolist())


@pytest.mark.parametrize("beam", [1, 3])
def test_a_list_of_all_tokens_changes_nothing(both: tuple[Any, Runner, EngineDecoder], beam: int) -> None:
    model, _, alone = both
    sources, request = asked(model, 7)
    every = np.arange(VOCABULARY), np.ones((len(sources), VOCABULARY), np.bool_)
    assert hypotheses(alone, sources, request, beam, every) == hypotheses(alone, sources, request, beam, None)


# --- its file ------------------------------------------------------------------------------------------------------


def listed() -> Shortlist:
    return Shortlist(np.array([1, 2], np.int32), np.array([[3, -1], [0, 1], [2, -1], [3, 0]], np.int32), "ours")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_shortlist(tmp_path, listed())
    found = read_shortlist(tmp_path, "ours", 4)
    assert np.array_equal(found.always, listed().always)
    assert np.array_equal(found.candidates, listed().candidates)


def test_a_missing_a_foreign_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no shortlist"):
        read_shortlist(tmp_path, "ours", 4)
    path = write_shortlist(tmp_path, listed())
    with pytest.raises(CheckpointError, match="another tokenizer"):
        read_shortlist(tmp_path, "theirs", 4)
    with pytest.raises(CheckpointError, match="does not have"):
        read_shortlist(tmp_path, "ours", 5)
    write_shortlist(tmp_path, Shortlist(np.array([4], np.int32), listed().candidates, "ours"))
    with pytest.raises(CheckpointError, match="does not have"):
        read_shortlist(tmp_path, "ours", 4)
    held = path.read_bytes()
    for cut in (0, 7, 40, len(held) - 1):
        (tmp_path / FILE).write_bytes(held[:cut])
        with pytest.raises(CheckpointError):
            read_shortlist(tmp_path, "ours", 4)
