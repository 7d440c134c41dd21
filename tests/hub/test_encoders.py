"""Every encoder-only family: what its heads say, and its files again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_rows import ROWS
from parity import LAWS, Batch, Case, assert_holds, assert_same_file, exactly, load_again, make, relative
from torch import Tensor

from sublayer import config
from sublayer.hub.canonical import canonical
from sublayer.hub.exporting import choose_family, export
from sublayer.hub.importing import import_folder, read_tree
from sublayer.models import EncoderOnly


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make(request.param, tmp_path_factory.mktemp("oracle"))


def types_of(case: Case) -> Tensor | None:
    """A kind for each token, where the family has kinds."""
    count = case.row.types
    return None if not count else torch.arange(case.batch.tokens.numel()).view(case.batch.tokens.shape) % count


@torch.no_grad()
def oracle_says(case: Case, oracle: Any, tokens: Tensor, real: Tensor, types: Tensor | None) -> dict[str, Tensor]:
    """`states` of a base model (and `pooled`, where it has a pooler), or `logits` of a head."""
    padding = oracle.config.pad_token_id
    tokens = torch.where(real, tokens, padding if padding is not None else 0)
    kinds = {} if types is None else {"token_type_ids": types}
    with exactly():
        found = oracle(input_ids=tokens, attention_mask=real.long(), **kinds)
    if hasattr(found, "logits"):
        logits = found.logits
        return {"logits": logits.unsqueeze(-1) if case.row.architecture == "ElectraForPreTraining" else logits}
    pooled = getattr(found, "pooler_output", None)
    return {"states": found.last_hidden_state} | ({} if pooled is None else {"pooled": pooled})


@torch.no_grad()
def we_say(model: EncoderOnly, batch: Batch, types: Tensor | None) -> dict[str, Tensor]:
    found = model(batch.tokens, batch.lengths, types)
    if not isinstance(model.config.head, config.NoHead):
        return {"logits": found}
    pooled = model.pooled(found)
    return {"states": found} | ({} if pooled is None else {"pooled": pooled})


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor], real: Tensor) -> float:
    """The largest relative error, of real positions."""
    assert ours.keys() == theirs.keys()
    return max(
        relative(*(said[name][real] if said[name].dim() == 3 else said[name] for said in (ours, theirs)))
        for name in ours
    )


def test_outputs(case: Case) -> None:
    theirs = oracle_says(case, case.oracle, case.batch.tokens, case.batch.real, types_of(case))
    assert worst(we_say(case.imported.model, case.batch, types_of(case)), theirs, case.batch.real) < 1e-9
    assert next(iter(theirs.values())).abs().max() > 0.1


def test_outputs_in_float32(case: Case) -> None:
    model = import_folder(case.folder, dtype=torch.float32).model
    theirs = oracle_says(case, case.oracle, case.batch.tokens, case.batch.real, types_of(case))
    assert worst(we_say(model, case.batch, types_of(case)), theirs, case.batch.real) < 1e-5


def test_laws(case: Case) -> None:
    """Of batches, packs and padding, through the head."""
    assert_holds(case.imported.model, *LAWS)


def test_padding_on_the_left(case: Case) -> None:
    """Of the oracle, where its positions are counted from the text's beginning: ours are, padded on the right."""
    if not case.row.architecture.startswith(("Roberta", "XLMRoberta")):
        return
    ours, batch = we_say(case.imported.model, case.batch, None), case.batch
    theirs = oracle_says(case, case.oracle, batch.left, batch.left_real, None)
    for name, said in theirs.items():
        if said.dim() == 3:
            assert relative(ours[name][batch.real], said[batch.left_real]) < 1e-9


def test_round_trip(case: Case, tmp_path: Path) -> None:
    """To the bit, keys and tensors; and `transformers` reads it as the model that it was."""
    model, origin = case.imported.model, case.imported.origin
    written = export(tmp_path / "ours", model, family=origin["family"], tokens=origin["tokens"])
    assert written is case.imported.family
    assert_same_file(tmp_path / "ours", case.folder)
    again = load_again(case.row, tmp_path / "ours")
    inputs = case.batch.tokens, case.batch.real, types_of(case)
    assert worst(oracle_says(case, again, *inputs), oracle_says(case, case.oracle, *inputs), case.batch.real) < 1e-12
    if case.oracle.config.num_labels != 2 and "LABEL_0" not in case.oracle.config.label2id:
        assert again.config.id2label == case.oracle.config.id2label
        head = model.config.head
        assert isinstance(head, config.Classification | config.Tagging)
        assert head.labels == tuple(case.oracle.config.id2label.values())


def test_config_there_and_back(case: Case) -> None:
    tree, family = case.imported.model.config, case.imported.family
    chosen, settings = choose_family(tree, family.name)
    assert chosen is family
    again = read_tree(family, settings)
    if family.settle is not None:
        again = family.settle(again, {name for rule in family.rules(tree) for name in rule.theirs})
    assert canonical(again) == canonical(tree)
