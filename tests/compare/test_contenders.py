"""Equal parameters, and the counts that stand beside the measured figures."""

from __future__ import annotations

import pytest
import torch

from sublayer import config
from sublayer.compare import parallel, plan, recall, translation
from sublayer.compare.contenders import chain, matched, path, recurrent_lm, recurrent_pair, transformer_lm
from sublayer.config.cost import total_parameters
from sublayer.config.load import load_recipe
from sublayer.models import build_model

LM = transformer_lm(32, 2, 50, 64)


@pytest.mark.parametrize("cell", config.CELLS)
@pytest.mark.parametrize("even", [False, True])
def test_no_other_width_comes_nearer(cell: config.Cell, even: bool) -> None:
    def make(dim: int) -> config.RecurrentDecoderOnly:
        return config.RecurrentDecoderOnly(cell=cell, dim=dim, vocab_size=50, decoder=config.Recurrence(layers=2))

    wanted = total_parameters(LM)
    every = [make(dim) for dim in range(2 if even else 1, 200, 2 if even else 1)]
    nearest = min(abs(total_parameters(tree) - wanted) for tree in every)
    assert abs(total_parameters(matched(LM, make, even=even)) - wanted) == nearest


def test_the_plans_compare_models_of_nearly_the_same_size() -> None:
    recipe = load_recipe(plan.FULL.translation.recipe).recipe
    assert isinstance(recipe.model, config.EncoderDecoder)
    reference = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size})
    for one in (plan.FULL, plan.QUICK):
        for trees in (
            parallel.contenders(one.parallel),
            recall.contenders(one.recall),
            translation.contenders(reference),
        ):
            counts = [total_parameters(tree) for tree in trees.values()]
            assert max(counts) < 1.03 * min(counts), dict(zip(trees, counts, strict=True))


def test_what_is_counted_is_what_is_built() -> None:
    for tree in (LM, recurrent_lm("gru", LM)):
        model = build_model(tree)
        assert sum(p.numel() for p in model.parameters()) == total_parameters(tree)


@pytest.mark.parametrize("length", [1, 5, 64])
def test_the_longest_chain_of_products(length: int) -> None:
    """Of a recurrence: by playing it through. A cell is reached one product after the later of those it waits for."""
    tree = recurrent_lm("lstm", LM, layers=3)
    reached = {(layer, -1): 0 for layer in range(3)} | {(-1, place): 0 for place in range(length)}
    for place in range(length):
        for layer in range(3):
            reached[layer, place] = 1 + max(reached[layer, place - 1], reached[layer - 1, place])
    assert chain(tree, length) == reached[2, length - 1] + 1
    # Of a Transformer: queries and keys, scores, mixture, output, up and down; whatever the length.
    assert chain(LM, length) == 2 * 6 + 1


@pytest.mark.parametrize("distance", [1, 8, 40])
def test_the_shortest_path_between_two_tokens(distance: int) -> None:
    """With the recurrence cut once on the way nothing arrives; with an attention there is no such place to cut."""
    assert path(LM, distance) == 1
    assert path(recurrent_lm("rnn", LM), distance) == distance


def test_a_pair_reads_both_ways() -> None:
    stack = LM.decoder
    like = config.EncoderDecoder(dim=32, vocab_size=50, max_length=20, encoder=stack, decoder=stack)
    tree = recurrent_pair("lstm", like, config.Multiplicative())
    assert tree.encoder.bidirectional
    assert tree.dim % 2 == 0
    model = build_model(tree)
    source = torch.randint(50, (2, 6))
    assert model(source, None, source).shape == (2, 6, 50)
