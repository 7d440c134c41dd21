"""Every encoder-decoder family: logits, what it says next under its own special tokens, and its files again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity import Batch, Case, assert_lawful, assert_same_file, build_oracle, draw_batch, exactly, load_again, relative
from seq2seq_rows import ROWS
from torch import Tensor, nn

from sublayer.hub.canonical import canonical
from sublayer.hub.exporting import choose_family, export
from sublayer.hub.importing import import_folder, read_tree
from sublayer.hub.tokens import SpecialTokens
from sublayer.models import EncoderDecoder

STEPS = 20


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The row with the first weights of which something is said: random decoders like to say one word for ever."""
    row, folder = request.param, tmp_path_factory.mktemp("oracle")
    for seed in range(100):
        torch.manual_seed(seed)
        oracle = build_oracle(row)
        enliven(oracle)
        if row.settings.get("tie_word_embeddings", True) is False:
            # Checkpoints of T5 1.1 have a projection of their own, which transformers 5 only makes when it reads one.
            oracle.lm_head.weight = nn.Parameter(torch.randn_like(oracle.shared.weight) * oracle.config.d_model**-0.5)
        batch = draw_batch(61, row.lengths)
        if len(oracle_says(oracle, batch).unique()) >= 7:
            oracle.save_pretrained(folder)
            return Case(row, oracle, folder, import_folder(folder), batch)
    raise AssertionError("nothing is said")


@torch.no_grad()
def enliven(oracle: Any) -> None:
    """Let what a decoder says depend on what was said: more on tokens and on attention, less on biases."""
    for name, parameter in oracle.named_parameters():
        if name.endswith("bias"):
            parameter.mul_(0.3)
        elif name.endswith(("q_proj.weight", "k_proj.weight")):
            parameter.mul_(1.5)
        elif name.endswith(".q.weight"):
            parameter.mul_(oracle.config.d_kv**-0.5)  # where T5 has the scale that others have on the scores
        elif ".layers." in name and parameter.dim() == 2:
            parameter.mul_(0.7)
        elif name == "model.shared.weight":
            parameter.mul_(2.0)


@pytest.fixture(scope="module")
def target() -> Tensor:
    return torch.randint(4, 61, (3, 17), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def oracle_logits(case: Case, oracle: Any, target: Tensor, *, left: bool = False) -> Tensor:
    """[B, T, V]. left: the sources padded on the left."""
    tokens, real = (case.batch.left, case.batch.left_real) if left else (case.batch.tokens, case.batch.real)
    tokens = torch.where(real, tokens, oracle.config.pad_token_id)
    with exactly():
        return oracle(input_ids=tokens, attention_mask=real.long(), decoder_input_ids=target).logits


@torch.no_grad()
def say(model: EncoderDecoder, source: Tensor, lengths: Tensor, tokens: SpecialTokens) -> Tensor:
    """[B, STEPS]: greedily, through `start` and `step`; no text ends before its room does."""
    assert tokens.start is not None
    state = model.start(source, lengths, capacity=STEPS)
    feed = torch.full((len(source), 1), tokens.start)
    found: list[Tensor] = []
    for step in range(STEPS):
        logits = model.step(feed, state)[:, -1]
        logits[:, [*tokens.banned, *tokens.end]] = float("-inf")
        feed = logits.argmax(dim=-1, keepdim=True)
        if step < len(tokens.forced_first):
            feed = torch.full_like(feed, tokens.forced_first[step])
        if step == STEPS - 1 and tokens.forced_last is not None:
            feed = torch.full_like(feed, tokens.forced_last)
        found.append(feed)
    return torch.cat(found, dim=1)


@torch.no_grad()
def oracle_says(oracle: Any, batch: Batch) -> Tensor:
    """[B, STEPS]: what `generate` says, the start token left out."""
    tokens = torch.where(batch.real, batch.tokens, oracle.config.pad_token_id)
    with exactly():
        found = oracle.generate(
            input_ids=tokens,
            attention_mask=batch.real.long(),
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            num_beams=1,
        )
    return found[:, 1:]


def test_logits(case: Case, target: Tensor) -> None:
    """All positions at once, and through the cache a few at a time."""
    batch, model = case.batch, case.imported.model
    assert isinstance(model, EncoderDecoder)
    theirs = oracle_logits(case, case.oracle, target)
    assert relative(model(batch.tokens, batch.lengths, target), theirs) < 1e-9
    state = model.start(batch.tokens, batch.lengths)
    pieces = [model.step(part, state) for part in target.split([6, 1, 1, 9], dim=1)]
    assert relative(torch.cat(pieces, dim=1), theirs) < 1e-9
    if model.config.encoder.position.type == "relative" or case.row.architecture.startswith("M2M100"):
        # Their positions do not know on which side padding stands, so ours, padded on the right, are the same.
        assert relative(oracle_logits(case, case.oracle, target, left=True), theirs) < 1e-9


def test_logits_in_float32(case: Case, target: Tensor) -> None:
    model = import_folder(case.folder, dtype=torch.float32).model
    theirs = oracle_logits(case, case.oracle, target)
    assert relative(model(case.batch.tokens, case.batch.lengths, target), theirs) < 1e-5


def test_continuation(case: Case) -> None:
    """What `generate` says, with every special token where it belongs; and each text by itself."""
    model, batch, tokens = case.imported.model, case.batch, case.imported.tokens
    assert isinstance(model, EncoderDecoder)
    ours = say(model, batch.tokens, batch.lengths, tokens)
    assert torch.equal(ours, oracle_says(case.oracle, batch))
    for row, length in enumerate(batch.lengths.tolist()):
        single = say(model, batch.tokens[row : row + 1, :length], batch.lengths[row : row + 1], tokens)
        assert torch.equal(single[0], ours[row])


def test_laws(case: Case) -> None:
    """Of batches and padding, in float64; greedy words, to the token, also as people read them."""
    assert_lawful(case)


def test_round_trip(case: Case, target: Tensor, tmp_path: Path) -> None:
    """To the bit, keys and tensors; and `transformers` reads it as the model that it was, special tokens and all."""
    model, origin = case.imported.model, case.imported.origin
    written = export(tmp_path / "ours", model, family=origin["family"], tokens=origin["tokens"])
    assert written is case.imported.family
    assert_same_file(tmp_path / "ours", case.folder)
    again = load_again(case.row, tmp_path / "ours")
    assert relative(oracle_logits(case, again, target), oracle_logits(case, case.oracle, target)) < 1e-12
    assert torch.equal(oracle_says(again, case.batch), oracle_says(case.oracle, case.batch))


def test_config_there_and_back(case: Case) -> None:
    tree, family = case.imported.model.config, case.imported.family
    chosen, settings = choose_family(tree, family.name)
    assert chosen is family
    assert canonical(read_tree(family, settings)) == canonical(tree)
