"""What a model costs, counted from the tree alone: parameters, floating-point operations, memory.

Nothing here touches torch, so that a model that would not fit can be described before any tensor exists. Every count
is a sum over parts: what a shape has beside its stacks, and each stack's layers, whatever the shape.

Symbols: D width of the stream, E width of the token table, V vocabulary, H query heads, G key-value heads, d width of a
head, F hidden width, S source tokens, T target tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sublayer.config import recurrent_cost
from sublayer.config.model import (
    Attention,
    Block,
    Classification,
    DecoderOnly,
    Embedding,
    EncoderDecoder,
    EncoderOnly,
    FeedForward,
    Gated,
    LayerNorm,
    Learned,
    MaskedLanguage,
    MixtureOfExperts,
    Model,
    NoHead,
    Norm,
    PositionWise,
    RecurrentDecoderOnly,
    RecurrentEncoderDecoder,
    RelativeBias,
    Rotary,
    SentenceEmbedding,
    Stack,
    Tagging,
    Transformer,
)
from sublayer.config.training import Ema, LastCheckpoints, Muon, Training

FLOAT32, BFLOAT16 = 4, 2
LOSS_PIECE = 2**23
"""Logits that the training loss holds at once (`sublayer.tasks.losses`)."""


@dataclass(frozen=True)
class _Side:
    """One stack of a model. cross: whether its layers attend to the other's output."""

    name: str
    stack: Stack
    cross: bool = False

    @property
    def attentions(self) -> Iterator[Attention]:
        """Every attention of every layer."""
        for block in self.stack.blocks:
            yield block.attention
            if self.cross:
                yield block.cross

    def sublayers(self, block: Block) -> int:
        return 3 if self.cross else 2

    def norms(self, block: Block) -> int:
        """Norms over D in one layer: one a sub-layer, two in sandwich form, or one for all."""
        if block.wiring == "parallel-shared":
            return 1
        return self.sublayers(block) * (2 if block.wiring == "sandwich" else 1) - (not block.attention_norm)

    @property
    def last_norm(self) -> bool:
        return self.stack.block.wiring != "post"


def _sides(model: Transformer) -> list[_Side]:
    match model:
        case EncoderDecoder():
            return [_Side("encoder", model.encoder), _Side("decoder", model.decoder, cross=True)]
        case DecoderOnly():
            return [_Side("decoder", model.decoder)]
        case EncoderOnly():
            return [_Side("encoder", model.encoder)]


# --- parameters --------------------------------------------------------------------------------------------------


def parameters(model: Model) -> dict[str, int]:
    """Parameters by part, in the order in which a token meets them; their sum is the model's.

    What is tied is counted once, in the embedding: an output that is tied has only its bias, if any, and one
    "embedding" serves both sides of an encoder-decoder where they are one matrix.
    """
    return _parameters(model, all_experts=True)


def total_parameters(model: Model) -> int:
    """How many numbers are trained."""
    return sum(parameters(model).values())


def active_parameters(model: Model) -> int:
    """How many numbers one token is computed with: of a mixture of experts, those that it is sent to."""
    return sum(_parameters(model, all_experts=False).values())


def _parameters(model: Model, *, all_experts: bool) -> dict[str, int]:
    if isinstance(model, RecurrentEncoderDecoder | RecurrentDecoderOnly):
        return _embeddings(model) | recurrent_cost.parameters(model) | _outputs(model)
    dim, sides = model.dim, _sides(model)
    count = _embeddings(model)
    for side in sides:
        blocks = side.stack.blocks
        if position := _positions(side.stack, model):
            count[f"{side.name}.position"] = position
        count[f"{side.name}.self_attention"] = sum(_attention(block.attention, dim) for block in blocks)
        if side.cross:
            count[f"{side.name}.cross_attention"] = sum(_attention(block.cross, dim) for block in blocks)
        count[f"{side.name}.feed_forward"] = sum(
            _feed_forward(block.feed_forward, dim, all_experts=all_experts) for block in blocks
        )
        norms = sum(side.norms(block) * _norm(block.norm, dim) for block in blocks)
        count[f"{side.name}.norms"] = norms + (_norm(side.stack.block.norm, dim) if side.last_norm else 0)
    return count | _outputs(model)


def _embeddings(model: Model) -> dict[str, int]:
    """Tables of tokens and of their kinds, norms on the sum, the map that widens it, a convolution: one set a side."""
    sides = 2 if isinstance(model, EncoderDecoder | RecurrentEncoderDecoder) else 1
    c = model.embedding
    width = _embedding_width(c, model.dim)
    table = model.vocab_size * width
    if isinstance(model, EncoderDecoder | RecurrentEncoderDecoder) and model.tied in ("target", "none"):
        count = {"source_embedding": table, "target_embedding": table}
    else:
        count = {"embedding": table}
    rest = {
        "embedding_types": c.types * width,
        "embedding_norms": 0 if c.norm is None else _norm(c.norm, width),
        "embedding_widening": 0 if c.width is None else (c.width + 1) * model.dim,
        "embedding_convolution": 0 if c.convolution is None else (c.convolution.width * model.dim + 1) * model.dim,
    }
    return count | {part: sides * numbers for part, numbers in rest.items() if numbers}


def _outputs(model: Model) -> dict[str, int]:
    """The projection to the vocabulary, or what an encoder's head consists of."""
    dim, table = model.dim, model.vocab_size * model.dim
    match model:
        case EncoderDecoder() | RecurrentEncoderDecoder():
            own = model.tied in ("embeddings", "none")
            return {"output": own * table + model.output_bias * model.vocab_size}
        case DecoderOnly() | RecurrentDecoderOnly():
            return {"output": (not model.tied) * table + model.output_bias * model.vocab_size}
        case EncoderOnly():
            pooler = {"pooler": dim * dim + dim} if model.pooler else {}
            match model.head:
                case MaskedLanguage() as head:
                    transform = dim * dim + head.bias * dim + _norm(head.norm, dim)
                    output = (not head.tied) * table + head.output_bias * model.vocab_size
                    return {**pooler, "head": transform, "output": output}
                case Classification() | Tagging() as head:
                    return {**pooler, "head": _transform(head, dim) + (dim + 1) * len(head.labels)}
                case NoHead() | SentenceEmbedding():
                    return pooler


def _transform(head: Classification | Tagging, dim: int) -> int:
    """The layer between an encoder and the labels, where there is one."""
    if head.activation is None:
        return 0
    if isinstance(head, Tagging):
        return dim * dim + dim
    return dim * dim + head.bias * dim + (0 if head.norm is None else _norm(head.norm, dim))


def _embedding_width(c: Embedding, dim: int) -> int:
    return dim if c.width is None else c.width


def _norm(norm: Norm, dim: int) -> int:
    return 2 * dim if isinstance(norm, LayerNorm) and norm.bias else dim


def _positions(stack: Stack, model: Transformer) -> int:
    if isinstance(stack.position, Learned):
        return (model.max_length + stack.position.offset) * _embedding_width(model.embedding, model.dim)
    if isinstance(stack.position, RelativeBias):
        return stack.position.buckets * stack.block.attention.heads
    return 0


def _attention(attention: Attention, dim: int) -> int:
    """(H + 2 G) d columns from D for queries, keys and values, H d rows back to D, norms of queries and keys."""
    width = attention.width(dim)
    query, key = attention.heads * width, attention.key_value_heads * width
    biases = attention.bias * (query + 2 * key) + attention.biased_output * dim
    norms = 0
    if attention.query_key_norm is not None:
        each = (width, width) if attention.query_key_norm_over == "head" else (query, key)
        norms = sum(_norm(attention.query_key_norm, size) for size in each)
    return _attention_matrices(attention, dim) + biases + norms


def _attention_matrices(attention: Attention, dim: int) -> int:
    return dim * (2 * attention.heads + 2 * attention.key_value_heads) * attention.width(dim)


def _feed_forward(part: FeedForward, dim: int, *, all_experts: bool) -> int:
    if isinstance(part, MixtureOfExperts):
        return dim * part.experts + (part.experts if all_experts else part.active) * 3 * dim * part.hidden
    columns = 2 * part.hidden if isinstance(part, Gated) else part.hidden
    return dim * (columns + part.hidden) + (columns + dim if part.bias else 0)


# --- floating-point operations -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one text (or pair of texts); a multiplication with its addition counts as two.

    training: forward and backward (twice the forward), a token: of the target where there is a source, whose share is
    included; of the text otherwise.
    encoding: what is read before the first token is made, once a text: an encoder with the cross-attention's keys and
    values, or a language model's prompt. For a model that only reads, all of it, its head included.
    decoding: one token more with a cache, when it is the last of T (after a prompt of S, in a language model), the
    projection to the vocabulary included; 0 for a model that only reads.
    """

    training: float
    encoding: int
    decoding: int


def flops(model: Model, source_length: int, target_length: int) -> Flops:
    """Operations of the matrix products for S tokens that are read and T that are made.

    Training: an encoder-decoder on a pair of S and T, a language model on a text of T, an encoder on one of S. Only
    pairs of positions that may attend to each other count, and only the experts that a token is sent to. Norms,
    softmax, activations, biases, positions and the optimizer are left out: they move memory more than they compute, and
    are below 2% at D = 512.
    """
    dim, projection = model.dim, 2 * model.dim * model.vocab_size
    match model:
        case EncoderDecoder():
            encoding = _read(model, model.encoder, source_length, causal=False)
            cross = [block.cross for block in model.decoder.blocks]
            encoding += sum(source_length * 4 * dim * one.key_value_heads * one.width(dim) for one in cross)
            # Queries and the way back, and the attention itself.
            looking = sum(4 * dim * one.heads * one.width(dim) + _attended(one, dim, source_length) for one in cross)
            made = _read(model, model.decoder, target_length, causal=True) + target_length * (looking + projection)
            one_more = _step(model, model.decoder, target_length) + looking + projection
            return Flops(3 * (encoding + made) / target_length, encoding, one_more)
        case DecoderOnly():
            made = _read(model, model.decoder, target_length, causal=True) + target_length * projection
            prompt = _read(model, model.decoder, source_length, causal=True)
            one_more = _step(model, model.decoder, source_length + target_length) + projection
            return Flops(3 * made / target_length, prompt, one_more)
        case EncoderOnly():
            forward = _read(model, model.encoder, source_length, causal=False) + _head(model, source_length)
            return Flops(3 * forward / source_length, forward, 0)
        case RecurrentEncoderDecoder():
            reading = source_length * (_embedded(model) + recurrent_cost.encoding(model))
            one_more = _embedded(model) + recurrent_cost.decoding(model, source_length) + projection
            return Flops(3 * (reading / target_length + one_more), reading, one_more)
        case RecurrentDecoderOnly():
            reading = _embedded(model) + recurrent_cost.decoding(model)
            return Flops(3 * (reading + projection), source_length * reading, reading + projection)


def _read(model: Transformer, stack: Stack, length: int, *, causal: bool) -> int:
    """All positions of a text at once, through the embedding and every layer but for cross-attention."""
    attended = sum(
        _attended(block.attention, model.dim, _pairs(length, block.attention.window, causal=causal))
        for block in stack.blocks
    )
    return length * (_embedded(model) + _products(stack, model.dim)) + attended


def _step(model: Transformer, stack: Stack, held: int) -> int:
    """One token more, the last of `held`, through the embedding and every layer but for cross-attention."""
    attended = sum(
        _attended(block.attention, model.dim, _pairs_of_the_last(held, block.attention.window))
        for block in stack.blocks
    )
    return _embedded(model) + _products(stack, model.dim) + attended


def _embedded(model: Model) -> int:
    """Operations a token between the table and the stream: the map that widens, and the convolution."""
    c = model.embedding
    widening = 0 if c.width is None else 2 * c.width * model.dim
    return widening + (0 if c.convolution is None else 2 * c.convolution.width * model.dim * model.dim)


def _products(stack: Stack, dim: int) -> int:
    """Operations a token in all layers' self-attention projections and feed-forwards."""
    return 2 * sum(
        _attention_matrices(block.attention, dim) + _feed_forward_matrices(block.feed_forward, dim, all_experts=False)
        for block in stack.blocks
    )


def _feed_forward_matrices(part: FeedForward, dim: int, *, all_experts: bool) -> int:
    match part:
        case PositionWise():
            return 2 * dim * part.hidden
        case Gated():
            return 3 * dim * part.hidden
        case MixtureOfExperts():
            return _feed_forward(part, dim, all_experts=all_experts)


def _attended(attention: Attention, dim: int, pairs: int) -> int:
    """Q K^T and the mixing of the values: each a product of width d in every query head, for every pair."""
    return 4 * attention.heads * attention.width(dim) * pairs


def _pairs(length: int, window: int | None, *, causal: bool) -> int:
    """Pairs of positions of one sequence that may attend to each other: those less than `window` apart."""
    reach = length if window is None else min(window, length)
    # The last `reach` positions, itself included: shorter rows at the start.
    back = reach * (reach + 1) // 2 + (length - reach) * reach
    return back if causal else 2 * back - length


def _pairs_of_the_last(length: int, window: int | None) -> int:
    return length if window is None else min(length, window)


def _head(model: EncoderOnly, length: int) -> int:
    """A whole text through pooler and head; masked language modelling projects every position."""
    square = 2 * model.dim * model.dim
    match model.head:
        case MaskedLanguage():
            return length * (square + 2 * model.dim * model.vocab_size)
        case Classification() as head:
            pooled = model.pooler and head.pooling == "class"
            return (pooled + (head.activation is not None)) * square + 2 * model.dim * len(head.labels)
        case Tagging() as head:
            return length * ((head.activation is not None) * square + 2 * model.dim * len(head.labels))
        case NoHead() | SentenceEmbedding():
            return 0


# --- memory ------------------------------------------------------------------------------------------------------


def training_memory(model: Model, training: Training, tokens: int | None = None) -> dict[str, int]:
    """Bytes by what holds them, at the peak of a training step; an estimate.

    weights, gradients: 4 bytes a parameter (bfloat16 autocast keeps both in float32), and for bfloat16 2 more for
    the copies that the products read.
    optimizer: Adam and AdamW keep two numbers a parameter, Muon one for each matrix inside the blocks.
    averages: one copy for "ema", `count` copies for "last".
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
    # What is left over by an odd number is the source's.
    two = isinstance(model, EncoderDecoder | RecurrentEncoderDecoder)
    share = [tokens - tokens // 2, tokens // 2] if two else [tokens]
    if isinstance(model, RecurrentEncoderDecoder | RecurrentDecoderOnly):
        kept = recurrent_cost.kept(model, share[0], share[-1]) * size
    else:
        kept = sum(count * _kept(model, side, size) for count, side in zip(share, _sides(model), strict=True))
    if isinstance(model, EncoderDecoder):
        cross = sum(2 * block.cross.key_value_heads * block.cross.width(model.dim) for block in model.decoder.blocks)
        kept += share[0] * size * (cross + model.dim)
    loss = 0
    if _projects(model):
        logits = min(share[-1], max(1, LOSS_PIECE // model.vocab_size)) * model.vocab_size
        loss = logits * size + (2 * share[-1] * model.dim + model.vocab_size * model.dim) * FLOAT32
    return {
        "weights": total * (FLOAT32 + (BFLOAT16 if small else 0)),
        "gradients": total * FLOAT32,
        "optimizer": _optimizer_numbers(model, training) * FLOAT32,
        "averages": _average_copies(training) * total * FLOAT32,
        "activations": kept,
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
    rows = batch * beam
    found = {"weights": total_parameters(model)}
    match model:
        case EncoderDecoder():
            crossing = [block.cross for block in model.decoder.blocks]
            found["self_cache"] = rows * length * _cached(model.decoder, model.dim)
            found["cross_cache"] = batch * read * sum(2 * a.key_value_heads * a.width(model.dim) for a in crossing)
            found["logits"] = 2 * rows * model.vocab_size
        case DecoderOnly():
            found["self_cache"] = rows * (read + length) * _cached(model.decoder, model.dim)
            found["logits"] = 2 * rows * model.vocab_size
        case EncoderOnly():
            found["states"] = batch * read * model.dim
            if _projects(model):
                found["logits"] = batch * read * model.vocab_size
        case RecurrentEncoderDecoder():
            found["state"] = rows * recurrent_cost.state(model)
            found["cross_cache"] = batch * read * recurrent_cost.looked_at(model)
            found["logits"] = 2 * rows * model.vocab_size
        case RecurrentDecoderOnly():
            found["state"] = rows * recurrent_cost.state(model)
            found["logits"] = 2 * rows * model.vocab_size
    return {what: numbers * bytes_per_number for what, numbers in found.items()}


def _cached(stack: Stack, dim: int) -> int:
    """Keys and values of one token in all layers."""
    return sum(2 * block.attention.key_value_heads * block.attention.width(dim) for block in stack.blocks)


def _projects(model: Model) -> bool:
    """Whether the model's last step is a projection to the vocabulary."""
    return not isinstance(model, EncoderOnly) or isinstance(model.head, MaskedLanguage)


def _optimizer_numbers(model: Model, training: Training) -> int:
    total = total_parameters(model)
    return 2 * total - (_block_matrices(model) if isinstance(training.optimizer, Muon) else 0)


def _block_matrices(model: Model) -> int:
    """Numbers in the matrices inside the blocks, which are what Muon takes: of experts, which stand in one tensor of
    three dimensions, only the router's; and of recurrent layers."""
    if isinstance(model, RecurrentEncoderDecoder | RecurrentDecoderOnly):
        return recurrent_cost.matrices(model)
    count = 0
    for side in _sides(model):
        count += sum(_attention_matrices(attention, model.dim) for attention in side.attentions)
        for block in side.stack.blocks:
            part = block.feed_forward
            if isinstance(part, MixtureOfExperts):
                count += model.dim * part.experts
            else:
                count += _feed_forward_matrices(part, model.dim, all_experts=True)
    return count


def _average_copies(training: Training) -> int:
    if isinstance(training.averaging, LastCheckpoints):
        return training.averaging.count
    return 1 if isinstance(training.averaging, Ema) else 0


def _kept(model: Transformer, side: _Side, size: int) -> int:
    """Bytes kept for the backward pass by one token of one stack."""
    dim = model.dim
    kept = sum(_kept_by_a_layer(block, side, dim, size) for block in side.stack.blocks)
    if side.last_norm:
        kept += _kept_by_a_norm(dim)
    return kept + (dim * FLOAT32 if model.embedding.dropout else 0) + _kept_by_the_embedding(model, size)


def _kept_by_the_embedding(model: Transformer, size: int) -> int:
    """The convolution's input in the products' type, its activation's, and its dropout's mask."""
    c = model.embedding.convolution
    return 0 if c is None else model.dim * (c.width * size + size + (FLOAT32 if c.dropout else 0))


def _kept_by_a_norm(dim: int) -> int:
    return dim * FLOAT32


def _kept_by_a_layer(block: Block, side: _Side, dim: int, size: int) -> int:
    """Norms and the dropouts' masks in float32; in the products' type the inputs of the products and of attention."""
    norms = side.norms(block) * _kept_by_a_norm(dim)
    masks = side.sublayers(block) * dim * FLOAT32 if block.dropout else 0
    own = block.attention
    numbers = dim + (2 * own.heads + 2 * own.key_value_heads) * own.width(dim)
    numbers += _written_anew(block, side.stack) * (own.heads + own.key_value_heads) * own.width(dim)
    if side.cross:
        numbers += dim + 2 * block.cross.heads * block.cross.width(dim)
    if block.wiring.startswith("parallel"):
        # Both sub-layers read the same: one stream into two norms, or what one norm has made of it.
        numbers -= dim
    return norms + masks + (numbers + _kept_by_a_feed_forward(block.feed_forward, dim)) * size


def _written_anew(block: Block, stack: Stack) -> int:
    """How many copies of queries and keys are kept beside what their projection gave."""
    norm = block.attention.query_key_norm
    turned = isinstance(stack.position if block.position is None else block.position, Rotary)
    if norm is None:
        return int(turned)
    # What is turned or normalized; and LayerNorm's input, where heads had to be put one after another for its kernel.
    return 1 + (block.attention.query_key_norm_over == "head" and isinstance(norm, LayerNorm))


def _kept_by_a_feed_forward(part: FeedForward, dim: int) -> int:
    match part:
        case PositionWise():
            # ReLU's gradient needs only its result, which is the next product's input; other activations need both.
            return dim + ((1 if part.activation == "relu" else 2) + (2 if part.dropout else 0)) * part.hidden
        case Gated():
            return dim + (4 + (2 if part.dropout else 0)) * part.hidden
        case MixtureOfExperts():
            # Each expert's copy of its tokens, what it makes of them, and that by the router's weight.
            return dim + part.experts + part.active * (3 * dim + 4 * part.hidden)
