"""What a model costs, summed from the tree alone: parameters, and memory. Operations are `model.flops(S, T)`.

Nothing here touches torch, so that a model that would not fit can be described before any tensor exists. Every part
counts itself (`sublayer.config.model`); a training counts what its optimizer and its averages remember.
"""

from __future__ import annotations

from sublayer.config.model import Model
from sublayer.config.part import BFLOAT16, FLOAT32
from sublayer.config.training import Training

LOSS_PIECE = 2**23
"""Logits that the training loss holds at once (`sublayer.tasks.losses`)."""


def total_parameters(model: Model) -> int:
    """How many numbers are trained."""
    return sum(model.parameters().values())


def active_parameters(model: Model) -> int:
    """How many numbers one token is computed with: of a mixture of experts, those that it is sent to."""
    return sum(model.parameters(active=True).values())


def training_memory(model: Model, training: Training, tokens: int | None = None) -> dict[str, int]:
    """Bytes by what holds them, at the peak of a training step; an estimate.

    weights, gradients: 4 bytes a parameter (bfloat16 autocast keeps both in float32), and for bfloat16 2 more for
    the copies that the products read.
    optimizer, averages: what the recipe's remember.
    activations: what the backward pass needs of one batch of `tokens` (in an encoder-decoder source and target, half
    each; the recipe's budget where left out), with fused attention, which keeps no weights: the inputs of every
    product and norm, the queries, keys and values, and the dropouts' masks.
    loss: it projects some tokens at a time, so of the logits only a piece stands in memory, once (the gradient takes
    the logits' place), with a few rows of probabilities; and its gradients for the model's output and the
    projection's weights. Nothing to speak of where there is no vocabulary to project to.

    Not counted: the kernels' workspaces, the allocator's slack and the library itself (0.3 to 1 GB); the layer between
    an encoder and its head. Attention by explicit products (bfloat16 on a CPU, a softcap) keeps H * T weights a token
    besides.
    """
    total = total_parameters(model)
    tokens = training.batches.tokens if tokens is None else tokens
    small = training.precision == "bfloat16"
    size = BFLOAT16 if small else FLOAT32
    loss, projected = 0, model.projected(tokens)
    if projected:
        logits = min(projected, max(1, LOSS_PIECE // model.vocab_size)) * model.vocab_size
        loss = logits * size + (2 * projected * model.dim + model.vocab_size * model.dim) * FLOAT32
    return {
        "weights": total * (FLOAT32 + (BFLOAT16 if small else 0)),
        "gradients": total * FLOAT32,
        "optimizer": training.optimizer.remembered(total, model.matrices()) * FLOAT32,
        "averages": training.averaging.copies * total * FLOAT32,
        "activations": model.kept(tokens, size),
        "loss": loss,
    }


def decoding_memory(
    model: Model,
    batch: int,
    beam: int,
    length: int,
    source_length: int | None = None,
    bytes_per_number: int = FLOAT32,
) -> dict[str, int]:
    """Bytes by what holds them, while `batch` texts are continued or translated with `beam` hypotheses each, or read.

    weights: all of them; a mixture's idle experts too.
    self_cache: keys and values of up to `length` tokens, and of a language model's prompt, a row a hypothesis, in every
    layer: 2 G d numbers a token. state: what a recurrent model remembers in its place, whatever the length.
    cross_cache: keys and values of the source, once a text, whatever the beam.
    logits: of one step, and their log-probabilities; of all positions in a model that only reads and fills masks.

    Args:
        length: tokens to make that the cache has room for. source_length: tokens to read; as `length` where left out.
    """
    read = length if source_length is None else source_length
    held = {"weights": total_parameters(model), **model.decoding(batch, batch * beam, length, read)}
    return {what: numbers * bytes_per_number for what, numbers in held.items()}
