"""Laws of the forward pass: two ways to the same answer.

Each is stated once for every shape that can be asked it, changes neither model nor inputs, and says how far the two
ways are apart.
"""

from __future__ import annotations

import torch

from sublayer.laws.feeding import Feeding, Packs, packed, side_by_side
from sublayer.laws.inputs import Inputs
from sublayer.laws.law import Apart, law
from sublayer.laws.measure import listening, relative_error


@law("fused = explicit", Feeding)
def fused_is_explicit(fed: Feeding, inputs: Inputs) -> Apart:
    """Listening to every attention, which makes each compute the equation, gives what the fused kernel gives.

    Also that every attention shows its weights, and that they are a distribution.
    """
    expected = fed.answer(inputs)
    with listening(fed.model, "attention.weights") as seen:
        found = fed.answer(inputs)
    silent = [name for name, shown in seen.items() if len(shown) != 1]
    fault = f"no weights shown by {', '.join(silent)}" if silent else ""
    error = relative_error(found, expected, fed.real(inputs))
    for shown in seen.values():
        total = shown[0].sum(-1) if shown else torch.ones(1)
        # A query with nothing to attend to (padding under a window) has weights of 0.
        error = max(error, relative_error(total, (total > 0.5).to(total.dtype)))
    return Apart(error, f"answers, listening to {len(seen)} attentions", fault)


@law("tapped = untapped", Feeding)
def tapped_is_untapped(fed: Feeding, inputs: Inputs) -> Apart:
    """Listening to every tap, streams and outputs and logits too, changes nothing, all at once and in decoding."""
    expected = fed.ways(inputs)
    with listening(fed.model) as seen:
        found = fed.ways(inputs)
    silent = [name for name, shown in seen.items() if len(shown) < len(found)]
    fault = f"nothing shown by {', '.join(silent)}" if silent else ""
    error = max(relative_error(a, b) for a, b in zip(found, expected, strict=True))
    return Apart(error, f"answers, listening to {len(seen)} taps", fault)


@law("batched = single", Feeding)
def batched_is_single(fed: Feeding, inputs: Inputs) -> Apart:
    """A ragged batch gives each text what it gets alone, without padding and without lengths."""
    batch = fed.answer(inputs)
    error = 0.0
    for row in range(inputs.rows):
        alone = fed.answer(inputs.alone(row))
        error = max(error, relative_error(batch[row : row + 1, : alone.shape[1]], alone))
    return Apart(error, f"answers to {inputs.rows} ragged texts")


@law("padding = other padding", Feeding)
def padding_is_ignored(fed: Feeding, inputs: Inputs) -> Apart:
    """What stands in the padding, of source and target, does not matter, all at once and in decoding."""
    pairs = zip(fed.ways(inputs.other_padding()), fed.ways(inputs), strict=True)
    return Apart(max(relative_error(found, expected) for found, expected in pairs), "answers with other padding")


@law("packed = separate", Packs)
def packed_is_separate(fed: Packs, inputs: Inputs) -> Apart:
    """Several texts in one row, in whatever order, get what each gets alone: neither attention nor positions cross."""
    texts = fed.texts(inputs)
    alone = [fed.hidden(text) for text in texts]
    found = fed.hidden(*packed([texts, texts[::-1]]))
    error = relative_error(found, side_by_side([alone, alone[::-1]]))
    return Apart(error, f"hidden states of {len(texts)} texts a row")
