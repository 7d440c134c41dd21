"""The logit lens: what a model would say if it ended after this layer.

The last norm and the projection are applied to every layer's stream (nostalgebraist 2020, "interpreting GPT: the logit
lens", https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru). What it shows of an early layer is what the last ones would
make of its stream, not all that the stream holds. A post-norm model has no last norm: its streams are normalized as
they are.

Shapes: S positions, D width, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import InputError
from sublayer.inspection.examples import Example, batch_of, logits_of, wide
from sublayer.inspection.groups import require_layers
from sublayer.inspection.recording import record
from sublayer.models import EncoderDecoder, EncoderOnly
from sublayer.models import Transformer as Model
from sublayer.models.evaluating import evaluating
from sublayer.models.stack import Stack


@dataclass(frozen=True, eq=False)
class Lens:
    """What a model would say after each layer.

    names: "embedding", "layer 0", ... logits: [1 + L, S, V] (or labels for V), float32 or wider, on the CPU; the last
    row is what the model says.
    """

    names: list[str]
    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """Shape: [1 + L, S, V]."""
        return self.logits.softmax(-1)

    def ranks(self, tokens: Tensor) -> Tensor:
        """How many candidates stand before a token, at each place, after each layer.

        Shape: tokens [S] int64 -> [1 + L, S] int64.
        """
        own = self.logits.gather(-1, tokens.expand(self.logits.shape[0], -1).unsqueeze(-1))
        return (self.logits > own).sum(-1)


@torch.no_grad()
def logit_lens(model: Model, example: Example, positions: Sequence[int] | None = None) -> Lens:
    """The lens on one example: a language model's next tokens, a translation's, a masked model's, a tagger's labels; of
    a classifier the text's label, as one position.

    Args:
        positions: only these of the S, from 0 on, negative from the last: the logits of all may be gigabytes.

    Raises:
        InputError: the model's head gives no logits, or a position does not exist.
    """
    stack, name = last_stack(model)
    with evaluating(model), record(model, f"{name}.embedding.stream", f"{name}.layers.*.stream") as seen:
        batch_of(model, [example], [0]).hidden(model)
        streams = torch.cat([calls[0] for calls in seen.values()])
        chosen = None if positions is None else [require_position(streams.shape[1], one) for one in positions]
        normed = scaled_output(model, stack.norm(streams))
        if isinstance(model, EncoderOnly) and isinstance(model.config.head, config.Classification):
            logits = model.read(normed).unsqueeze(1)
        else:
            logits = logits_of(model, normed if chosen is None else normed[:, chosen])
    return Lens(layer_names(len(stack.layers)), wide(logits).cpu())


def layer_names(layers: int) -> list[str]:
    """What the places between the layers are called, from the first on."""
    return ["embedding", *(f"layer {layer}" for layer in range(layers))]


def last_stack(model: Model) -> tuple[Stack, str]:
    """The stack that the answer is read from, and its name.

    Raises:
        InputError: it has no layers.
    """
    require_layers(model)
    return (model.encoder, "encoder") if isinstance(model, EncoderOnly) else (model.decoder, "decoder")


def scaled_output(model: Model, x: Tensor) -> Tensor:
    """What the projection reads of a stack's output: times T5's factor, where there is one."""
    return x * model.config.output_scale if isinstance(model, EncoderDecoder) else x


def require_position(size: int, position: int | None) -> int:
    """A position counted from 0; the last where it is left out.

    Raises:
        InputError: it does not exist.
    """
    place = size - 1 if position is None else position
    if not -size <= place < size:
        raise InputError(f"there is no position {position}", f"The positions are 0 to {size - 1}, or -1 for the last.")
    return place % size
