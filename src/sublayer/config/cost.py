"""What a model costs, counted from the tree alone: parameters, floating-point operations, memory.

Nothing here touches torch, so that a model that would not fit can be described before any tensor exists.

Symbols: D width of the stream, V vocabulary, H query heads, G key-value heads, d width of a head, F hidden width,
S source tokens, T target tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from sublayer.config.model import (
    Attention,
    EncoderDecoder,
    FeedForward,
    Gated,
    LayerNorm,
    Learned,
    Norm,
    PositionWise,
    RelativeBias,
    Stack,
)
from sublayer.config.training import Ema, LastCheckpoints, Muon, Training

FLOAT32, BFLOAT16 = 4, 2
LOSS_PIECE = 2**23
"""Logits that the training loss holds at once (`sublayer.training.losses`)."""


# --- parameters --------------------------------------------------------------------------------------------------


def parameters(model: EncoderDecoder) -> dict[str, int]:
    """Parameters by part, in the order in which a token meets them; their sum is the model's.

    What is tied is counted once: with `tied = "all"` one "embedding" serves both sides and the output, which then
    has only its bias, if any.
    """
    dim, table = model.dim, model.vocab_size * model.dim
    count = {"embedding": table} if model.tied == "all" else {"source_embedding": table, "target_embedding": table}
    if model.embedding.norm is not None:
        count["embedding_norms"] = 2 * _norm(model.embedding.norm, dim)
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        if position := _position(stack, model):
            count[f"{side}.position"] = position
        count[f"{side}.self_attention"] = stack.layers * _attention(stack.block.attention, dim)
        if side == "decoder":
            count[f"{side}.cross_attention"] = stack.layers * _attention(stack.block.cross, dim)
        count[f"{side}.feed_forward"] = stack.layers * _feed_forward(stack.block.feed_forward, dim)
        count[f"{side}.norms"] = _norms(stack, side) * _norm(stack.block.norm, dim)
    count["output"] = (table if model.tied == "none" else 0) + (model.vocab_size if model.output_bias else 0)
    return count


def total_parameters(model: EncoderDecoder) -> int:
    """How many numbers are trained."""
    return sum(parameters(model).values())


def _norm(norm: Norm, dim: int) -> int:
    return 2 * dim if isinstance(norm, LayerNorm) and norm.bias else dim


def _norms(stack: Stack, side: str) -> int:
    """Norms of a stack: one a sub-layer, two in sandwich form; and a last one unless the wiring is post."""
    wiring = stack.block.wiring
    return stack.layers * _sublayers(side) * (2 if wiring == "sandwich" else 1) + (0 if wiring == "post" else 1)


def _sublayers(side: str) -> int:
    return 3 if side == "decoder" else 2


def _position(stack: Stack, model: EncoderDecoder) -> int:
    if isinstance(stack.position, Learned):
        return model.max_length * model.dim
    if isinstance(stack.position, RelativeBias):
        return stack.position.buckets * stack.block.attention.heads
    return 0


def _attention(attention: Attention, dim: int) -> int:
    """(H + 2 G) d columns from D for queries, keys and values, H d rows back to D, norms of queries and keys."""
    width = attention.width(dim)
    query, key_value = attention.heads * width, 2 * attention.key_value_heads * width
    biases = query + key_value + dim if attention.bias else 0
    norms = 0 if attention.query_key_norm is None else 2 * _norm(attention.query_key_norm, width)
    return dim * (2 * query + key_value) + biases + norms


def _feed_forward(part: FeedForward, dim: int) -> int:
    columns = 2 * part.hidden if isinstance(part, Gated) else part.hidden
    return dim * (columns + part.hidden) + (columns + dim if part.bias else 0)


# --- floating-point operations -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one sentence pair; a multiplication with its addition counts as two.

    training: forward and backward (twice the forward), a target token, the encoder's share included.
    encoding: the encoder and the cross-attention's keys and values, once a sentence.
    decoding: one token more with a cache, when it is the last of T, the projection to the vocabulary included.
    """

    training: float
    encoding: int
    decoding: int


def flops(model: EncoderDecoder, source_length: int, target_length: int) -> Flops:
    """Operations of the matrix products for a pair of S and T tokens.

    Only pairs of positions that may attend to each other count. Norms, softmax, activations, biases, positions and
    the optimizer are left out: they move memory more than they compute, and are below 2% at D = 512.
    """
    encoder, decoder = model.encoder, model.decoder
    own, cross = decoder.block.attention, decoder.block.cross
    pairs = _pairs(source_length, encoder.block.attention.window, causal=False)
    encoding = encoder.layers * (
        source_length * _layer_products(encoder, model.dim) + _attended(encoder.block.attention, model.dim, pairs)
    )
    encoding += decoder.layers * source_length * 4 * model.dim * cross.key_value_heads * cross.width(model.dim)

    queries = 4 * model.dim * cross.heads * cross.width(model.dim)
    seen = _attended(cross, model.dim, source_length)
    each = decoder.layers * (_layer_products(decoder, model.dim) + queries + seen) + 2 * model.dim * model.vocab_size
    pairs = _pairs(target_length, own.window, causal=True)
    forward = encoding + target_length * each + decoder.layers * _attended(own, model.dim, pairs)

    held = target_length if own.window is None else min(target_length, own.window)
    decoding = each + decoder.layers * _attended(own, model.dim, held)
    return Flops(training=3 * forward / target_length, encoding=encoding, decoding=decoding)


def _layer_products(stack: Stack, dim: int) -> int:
    """Operations a token in one layer's self-attention projections and feed-forward."""
    attention, part = stack.block.attention, stack.block.feed_forward
    columns = (2 * attention.heads + 2 * attention.key_value_heads) * attention.width(dim)
    return 2 * dim * (columns + (3 if isinstance(part, Gated) else 2) * part.hidden)


def _attended(attention: Attention, dim: int, pairs: int) -> int:
    """Q K^T and the mixing of the values: each a product of width d in every query head, for every pair."""
    return 4 * attention.heads * attention.width(dim) * pairs


def _pairs(length: int, window: int | None, *, causal: bool) -> int:
    """Pairs of positions of one sequence that may attend to each other: those less than `window` apart."""
    reach = length if window is None else min(window, length)
    # The last `reach` positions, itself included: shorter rows at the start.
    back = reach * (reach + 1) // 2 + (length - reach) * reach
    return back if causal else 2 * back - length


# --- memory ------------------------------------------------------------------------------------------------------


def training_memory(model: EncoderDecoder, training: Training, tokens: int | None = None) -> dict[str, int]:
    """Bytes by what holds them, at the peak of a training step; an estimate.

    weights, gradients: 4 bytes a parameter (bfloat16 autocast keeps both in float32), and for bfloat16 2 more for
    the copies that the products read.
    optimizer: Adam and AdamW keep two numbers a parameter, Muon one for each matrix inside the blocks.
    averages: one copy for "ema", `count` copies for "last".
    activations: what the backward pass needs of one batch of `tokens` (source and target, half each; the recipe's
    budget where left out), with fused attention, which keeps no weights: the inputs of every product and norm, the
    queries, keys and values, and the dropouts' masks.
    loss: it projects some tokens at a time, so of the logits only a piece stands in memory, once (the gradient takes
    the logits' place), with a few rows of probabilities; and its gradients for the decoder's output and the
    projection's weights.

    Not counted: the kernels' workspaces, the allocator's slack and the library itself (0.3 to 1 GB). Bfloat16 on a
    CPU attends by explicit products, which keep H * T weights a token besides.
    """
    total = total_parameters(model)
    tokens = training.batches.tokens if tokens is None else tokens
    small = training.precision == "bfloat16"
    size = BFLOAT16 if small else FLOAT32
    source, target = tokens - tokens // 2, tokens // 2
    kept = source * _kept(model, "encoder", size) + target * _kept(model, "decoder", size)
    cross = model.decoder.block.cross
    kept += source * size * (model.decoder.layers * 2 * cross.key_value_heads * cross.width(model.dim) + model.dim)
    logits = min(target, max(1, LOSS_PIECE // model.vocab_size)) * model.vocab_size
    return {
        "weights": total * (FLOAT32 + (BFLOAT16 if small else 0)),
        "gradients": total * FLOAT32,
        "optimizer": _optimizer_numbers(model, training) * FLOAT32,
        "averages": _average_copies(training) * total * FLOAT32,
        "activations": kept,
        "loss": logits * size + (2 * target * model.dim + model.vocab_size * model.dim) * FLOAT32,
    }


def decoding_memory(
    model: EncoderDecoder,
    batch: int,
    beam: int,
    length: int,
    source_length: int | None = None,
    bytes_per_number: int = FLOAT32,
) -> dict[str, int]:
    """Bytes by what holds them, while `batch` sentences are translated with `beam` hypotheses each.

    self_cache: keys and values of up to `length` tokens, a row a hypothesis, in every layer: 2 G d numbers a token.
    cross_cache: keys and values of the source, once a sentence, whatever the beam.
    logits: of one step, and their log-probabilities.

    Args:
        length: tokens that the cache has room for. source_length: as `length` where left out.
    """
    own, cross = model.decoder.block.attention, model.decoder.block.cross
    rows, source = batch * beam, length if source_length is None else source_length
    layers = model.decoder.layers * bytes_per_number
    return {
        "weights": total_parameters(model) * bytes_per_number,
        "self_cache": layers * rows * length * 2 * own.key_value_heads * own.width(model.dim),
        "cross_cache": layers * batch * source * 2 * cross.key_value_heads * cross.width(model.dim),
        "logits": 2 * rows * model.vocab_size * bytes_per_number,
    }


def _optimizer_numbers(model: EncoderDecoder, training: Training) -> int:
    total = total_parameters(model)
    return 2 * total - (_block_matrices(model) if isinstance(training.optimizer, Muon) else 0)


def _block_matrices(model: EncoderDecoder) -> int:
    """Numbers in the matrices inside the blocks, which are what Muon takes."""
    count = 0
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        attentions = [stack.block.attention, *([stack.block.cross] if side == "decoder" else [])]
        for attention in attentions:
            columns = (2 * attention.heads + 2 * attention.key_value_heads) * attention.width(model.dim)
            count += stack.layers * model.dim * columns
        part = stack.block.feed_forward
        count += stack.layers * model.dim * part.hidden * (3 if isinstance(part, Gated) else 2)
    return count


def _average_copies(training: Training) -> int:
    if isinstance(training.averaging, LastCheckpoints):
        return training.averaging.count
    return 1 if isinstance(training.averaging, Ema) else 0


def _kept(model: EncoderDecoder, side: str, size: int) -> int:
    """Bytes kept for the backward pass by one token of one stack."""
    stack = model.encoder if side == "encoder" else model.decoder
    block, dim = stack.block, model.dim
    # RMSNorm, which a CPU computes step by step, keeps its normalized input too.
    copies = 1 if isinstance(block.norm, LayerNorm) else 2
    norms = _norms(stack, side) * copies * dim * FLOAT32
    masks = (stack.layers * _sublayers(side) * dim * FLOAT32 if block.dropout else 0) + (
        dim * FLOAT32 if model.embedding.dropout else 0
    )
    own, part = block.attention, block.feed_forward
    width = own.width(dim)
    numbers = dim + (2 * own.heads + 2 * own.key_value_heads) * width
    if side == "decoder":
        numbers += dim + 2 * block.cross.heads * block.cross.width(dim)
    # ReLU's gradient needs only its result, which is the next product's input; other activations need both.
    wide = {"relu": 1}.get(part.activation, 2) if isinstance(part, PositionWise) else 4
    numbers += dim + (wide + (2 if part.dropout else 0)) * part.hidden
    return norms + masks + stack.layers * numbers * size
