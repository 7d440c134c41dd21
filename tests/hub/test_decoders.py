"""Every decoder family: the oracle's logits and words, and its files again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from causal import continuation, left_padded, oracle_continuation, oracle_logits, right_padded
from decoder_rows import ROWS
from parity import Case, assert_lawful, assert_same_file, load_again, make, relative

from sublayer.hub.canonical import canonical
from sublayer.hub.exporting import choose_family, export
from sublayer.hub.importing import import_folder, read_tree


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make(request.param, tmp_path_factory.mktemp("oracle"))


def test_logits(case: Case) -> None:
    """All at once and through the cache, padded on the right and on the left."""
    batch, model = case.batch, case.imported.model
    assert next(model.parameters()).dtype == torch.float64
    theirs = oracle_logits(case.oracle, batch)[batch.left_real]
    assert relative(right_padded(model, batch)[batch.real], theirs) < 1e-9
    assert relative(left_padded(model, batch, (7, 1, 1, 4))[batch.left_real], theirs) < 1e-9


def test_logits_in_float32(case: Case) -> None:
    """Read as float32: the fixed tables, the norms and the softmax in the type that people use."""
    batch = case.batch
    model = import_folder(case.folder, dtype=torch.float32).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    theirs = oracle_logits(case.oracle, batch)[batch.left_real]
    assert relative(right_padded(model, batch)[batch.real], theirs) < 1e-5


def test_continuation(case: Case) -> None:
    """Greedily, with the cache, a batch of several lengths; and each text by itself."""
    batch, model = case.batch, case.imported.model
    ours = continuation(model, batch.tokens, batch.lengths, 20)
    assert torch.equal(ours, oracle_continuation(case.oracle, batch, 20))
    assert len(ours.unique()) > 2
    for row, length in enumerate(batch.lengths.tolist()):
        single = continuation(model, batch.tokens[row : row + 1, :length], batch.lengths[row : row + 1], 20)
        assert torch.equal(single[0], ours[row])


def test_laws(case: Case) -> None:
    """Of batches, packs and padding, in float64; greedy words, to the token, also as people read them."""
    assert_lawful(case)


def test_round_trip(case: Case, tmp_path: Path) -> None:
    """To the bit, keys and tensors; and `transformers` reads it as the model that it was."""
    model, origin = case.imported.model, case.imported.origin
    written = export(tmp_path / "ours", model, family=origin["family"], tokens=origin["tokens"])
    assert written is case.imported.family
    assert_same_file(tmp_path / "ours", case.folder)
    again = load_again(case.row, tmp_path / "ours")
    assert relative(oracle_logits(again, case.batch), oracle_logits(case.oracle, case.batch)) < 1e-12
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(again.config, name) == getattr(case.oracle.config, name)


def test_config_there_and_back(case: Case) -> None:
    tree = case.imported.model.config
    family, settings = choose_family(tree, case.imported.family.name)
    assert canonical(read_tree(family, settings)) == canonical(tree)
