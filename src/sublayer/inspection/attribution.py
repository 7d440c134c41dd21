"""Which words an answer comes from: attention rollout, and gradient times input.

Rollout (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", https://arxiv.org/abs/2005.00928, section
3) follows attention through the layers: with A_l the mean over a layer's heads,

    rollout = product over the layers, the last on the left, of (A_l + I) / 2

so that row q says how much of each token's place at the bottom is in place q at the top, if attention were all that
mixes places and every sub-layer passed on half of the stream as it was. It is an estimate from attention alone: values,
output maps and feed-forwards do not enter. The paper defines it for one stack. What a decoder beside an encoder takes
from there by cross-attention has no place in it, so of an encoder-decoder only the encoder is given.

Gradient times input (Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713, section 3; Denil et al. 2014) is the
inner product of each token's embedding, as the stream begins with it, with the gradient of the logit there: how much
the logit would rise if this embedding grew by a small part of itself. It is the model's own derivative, for every shape
and head, and says nothing of large changes. Where the first thing that reads a stream is a norm, the length of an
embedding hardly counts, and all these numbers are small: compare them with each other.

Shapes: S positions (of the source), T of what a decoder is fed, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import InputError
from sublayer.inspection.editing import edit
from sublayer.inspection.examples import Example, batch_of, logits_of, wide
from sublayer.inspection.groups import groups
from sublayer.inspection.lens import require_position
from sublayer.inspection.recording import record
from sublayer.models import EncoderOnly
from sublayer.models import Transformer as Model
from sublayer.models.evaluating import evaluating


@torch.no_grad()
def rollout(model: Model, example: Example) -> Tensor:
    """Attention rollout through a model's encoder, or through its only stack; rows sum to 1.

    Shape: -> [S, S], float32 or wider, on the CPU: row q, column of the token at the bottom.
    """
    taps = groups(model)[0].taps("weights")
    with evaluating(model), record(model, *taps) as seen:
        batch_of(model, [example], [0]).hidden(model)
    means = [wide(seen[tap][0][0].mean(0)).cpu() for tap in taps]
    same = torch.eye(len(means[0]), dtype=means[0].dtype)
    flow = same
    for mean in means:
        flow = (mean + same) / 2 @ flow
    return flow


@dataclass(frozen=True, eq=False)
class Attribution:
    """Gradient times input of one logit, float32 or wider, on the CPU.

    Shape: tokens [S], of what the encoder or only stack reads; fed [T], of what a decoder beside an encoder is fed, or
    None.
    """

    logit: float
    tokens: Tensor
    fed: Tensor | None


def gradient_times_input(model: Model, example: Example, token: int, position: int | None = None) -> Attribution:
    """How much each word's embedding counts for a logit, to first order.

    Args:
        token: an id, or the number of a label. position: of what the model says, counted from 0, negative from the
            last; the last where left out. A classifier says one thing of a text and is given none.

    Raises:
        InputError: the position or token does not exist, or the model's head gives no logits.
    """
    begins: dict[str, Tensor] = {}

    def begin(value: Tensor, name: str) -> Tensor:
        begins[name] = value.detach().requires_grad_()
        return begins[name]

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
        edit(model, "*coder.embedding.stream", begin),
    ):
        some = batch_of(model, [example], [0])
        hidden = some.hidden(model)
        if isinstance(model, EncoderOnly) and isinstance(model.config.head, config.Classification):
            if position is not None:
                raise InputError(f"position = {position}, but a classifier says one thing of a text", "Leave it out.")
            scores = model.read(hidden, some.lengths)[0]
        else:
            scores = logits_of(model, hidden)[0, require_position(hidden.shape[1], position)]
        if not 0 <= token < scores.shape[0]:
            raise InputError(f"there is no token (or label) {token}", f"They are 0 to {scores.shape[0] - 1}.")
        gradients = torch.autograd.grad(scores[token], list(begins.values()))
    found = {
        name: wide((gradient[0] * value.detach()[0]).sum(-1)).cpu()
        for gradient, (name, value) in zip(gradients, begins.items(), strict=True)
    }
    first, *others = (found[name] for name in sorted(found, reverse=True))  # "encoder..." before "decoder..."
    return Attribution(scores[token].item(), first, others[0] if others else None)
