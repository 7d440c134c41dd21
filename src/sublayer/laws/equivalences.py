"""Laws of the forward pass: two ways to the same answer.

Each is stated once for every shape that can be asked it, changes neither model nor inputs, and says how far the two
ways are apart.
"""

from __future__ import annotations

import torch

from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Discrepancy, law
from sublayer.laws.measure import listening, relative_error
from sublayer.laws.model_adapter import ModelAdapter, Packs, packed, side_by_side


@law("fused = explicit", ModelAdapter)
def fused_is_explicit(adapter: ModelAdapter, inputs: Inputs) -> Discrepancy:
    """Listening to every attention, which makes each compute the equation, gives what the fused kernel gives.

    Also that every attention shows its weights, and that they are a distribution.
    """
    expected = adapter.answer(inputs)
    with listening(adapter.model, "attention.weights") as seen:
        found = adapter.answer(inputs)
    silent = [name for name, shown in seen.items() if len(shown) != 1]
    fault = f"no weights shown by {', '.join(silent)}" if silent else ""
    error = relative_error(found, expected, adapter.real(inputs))
    for shown in seen.values():
        total = shown[0].sum(-1) if shown else torch.ones(1)
        # A query with nothing to attend to (padding under a window) has weights of 0.
        error = max(error, relative_error(total, (total > 0.5).to(total.dtype)))
    return Discrepancy(error, f"answers, listening to {len(seen)} attentions", fault)


@law("tapped = untapped", ModelAdapter)
def tapped_is_untapped(adapter: ModelAdapter, inputs: Inputs) -> Discrepancy:
    """Listening to every tap, streams and outputs and logits too, changes nothing, all at once and in decoding."""
    expected = adapter.ways(inputs)
    with listening(adapter.model) as seen:
        found = adapter.ways(inputs)
    silent = [name for name, shown in seen.items() if len(shown) < len(found)]
    fault = f"nothing shown by {', '.join(silent)}" if silent else ""
    error = max(relative_error(a, b) for a, b in zip(found, expected, strict=True))
    return Discrepancy(error, f"answers, listening to {len(seen)} taps", fault)


@law("batched = single", ModelAdapter)
def batched_is_single(adapter: ModelAdapter, inputs: Inputs) -> Discrepancy:
    """A ragged batch gives each text what it gets alone, without padding and without lengths."""
    batch = adapter.answer(inputs)
    error = 0.0
    for row in range(inputs.rows):
        alone = adapter.answer(inputs.alone(row))
        error = max(error, relative_error(batch[row : row + 1, : alone.shape[1]], alone))
    return Discrepancy(error, f"answers to {inputs.rows} ragged texts")


@law("padding = other padding", ModelAdapter)
def padding_is_ignored(adapter: ModelAdapter, inputs: Inputs) -> Discrepancy:
    """What stands in the padding, of source and target, does not matter, all at once and in decoding."""
    pairs = zip(adapter.ways(inputs.other_padding()), adapter.ways(inputs), strict=True)
    return Discrepancy(max(relative_error(found, expected) for found, expected in pairs), "answers with other padding")


@law("packed = separate", Packs)
def packed_is_separate(adapter: Packs, inputs: Inputs) -> Discrepancy:
    """Several texts in one row, in whatever order, get what each gets alone: neither attention nor positions cross."""
    texts = adapter.texts(inputs)
    alone = [adapter.hidden(text) for text in texts]
    found = adapter.hidden(*packed([texts, texts[::-1]]))
    error = relative_error(found, side_by_side([alone, alone[::-1]]))
    return Discrepancy(error, f"hidden states of {len(texts)} texts a row")


LAWS = (fused_is_explicit, tapped_is_untapped, batched_is_single, padding_is_ignored, packed_is_separate)
