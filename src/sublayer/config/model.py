"""The typed tree that describes a model. A part's type selects the variant.

Reading guide: the three shapes (`EncoderDecoder`, `DecoderOnly`, `EncoderOnly`) are the roots, and at the end stand
their recurrent rivals; everything above is a part of them, in the order in which the paper introduces them. Nothing
here touches torch: the tree is enough for the JSON schema, the parameter count, the FLOPs and the memory
(`sublayer.config.cost`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sublayer.config.part import LARGEST_COUNT, Count, Epsilon, Experts, Factor, Layers, Part, Probability, Size
from sublayer.config.recurrent import Cell, Recurrence, RecurrentDecoder, RecurrentEncoder

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "tanh"]

# --- positions (section 3.5) -------------------------------------------------------------------------------------


class Sinusoidal(Part):
    """Sines and cosines of fixed frequencies, added to the embeddings (section 3.5).

    `layout`: the paper interleaves sin and cos; "halves" puts all sines first, as Marian and tensor2tensor do.
    `spacing`: frequencies are base ** (-i / (D / 2)) in the paper, and base ** (-i / (D / 2 - 1)), which ends at
    exactly 1 / base, in tensor2tensor ("inclusive"). `offset`: the number of the first token's position.
    """

    type: Literal["sinusoidal"] = "sinusoidal"
    base: Factor = 10_000.0
    layout: Literal["interleaved", "halves"] = "interleaved"
    spacing: Literal["paper", "inclusive"] = "paper"
    offset: Count = 0


class Learned(Part):
    """One trained vector a position, added to the embeddings (section 3.5, last paragraph).

    `offset`: rows of the table before that of the first token, unused (fairseq's models keep 2).
    """

    type: Literal["learned"] = "learned"
    offset: Count = 0


class Unscaled(Part):
    """Rotary frequencies as trained."""

    type: Literal["none"] = "none"


class LinearScaling(Part):
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023)."""

    type: Literal["linear"] = "linear"
    factor: Factor


class NtkScaling(Part):
    """The base raised so that the slowest frequency is divided by `factor` and the fastest is kept ("NTK-aware")."""

    type: Literal["ntk"] = "ntk"
    factor: Factor


class YarnScaling(Part):
    """YaRN (Peng et al. 2023): interpolate slow frequencies, keep fast ones, and sharpen the attention a little.

    `magnitude`: the factor on sines and cosines; unset means the paper's, 0.1 ln(factor) + 1.
    """

    type: Literal["yarn"] = "yarn"
    factor: Factor
    original_length: Size
    beta_fast: Factor = 32.0
    beta_slow: Factor = 1.0
    magnitude: Factor | None = None


class Llama3Scaling(Part):
    """The scaling of Llama 3.1: by wavelength, with a smooth passage between kept and divided frequencies."""

    type: Literal["llama3"] = "llama3"
    factor: Factor
    original_length: Size
    low_frequency_factor: Factor = 1.0
    high_frequency_factor: Factor = 4.0

    @model_validator(mode="after")
    def _high_above_low(self) -> Self:
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError(
                f"high_frequency_factor = {self.high_frequency_factor} is not more than"
                f" low_frequency_factor = {self.low_frequency_factor}"
            )
        return self


RotaryScaling = Annotated[
    Unscaled | LinearScaling | NtkScaling | YarnScaling | Llama3Scaling, Field(discriminator="type")
]


class Rotary(Part):
    """Queries and keys rotated by their position (RoFormer, Su et al. 2021).

    `layout`: "halves" pairs dimension i with i + d/2 (Llama's), "interleaved" pairs 2i with 2i + 1 (the paper's).
    `fraction`: the part of each head that is rotated, from the front.
    """

    type: Literal["rotary"] = "rotary"
    base: Annotated[float, Field(gt=1.0, le=1e12)] = 10_000.0
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    layout: Literal["halves", "interleaved"] = "halves"
    scaling: RotaryScaling = Unscaled()


class Alibi(Part):
    """A penalty on the scores that grows with the distance, at a slope of its own in each head (Press et al. 2021)."""

    type: Literal["alibi"] = "alibi"


class RelativeBias(Part):
    """T5's relative bias: a trained number per head and bucket of distances, added to the scores."""

    type: Literal["relative"] = "relative"
    buckets: Annotated[int, Field(ge=4, le=LARGEST_COUNT)] = 32
    max_distance: Size = 128


class NoPosition(Part):
    """No positions: order is seen only through the causal mask."""

    type: Literal["none"] = "none"


Position = Annotated[Sinusoidal | Learned | Rotary | Alibi | RelativeBias | NoPosition, Field(discriminator="type")]

# --- normalization -----------------------------------------------------------------------------------------------


class LayerNorm(Part):
    """Mean and variance removed, then scaled and shifted (Ba et al. 2016)."""

    type: Literal["layer"] = "layer"
    eps: Epsilon = 1e-5
    bias: bool = True


class RMSNorm(Part):
    """Divided by the root mean square, then scaled (Zhang and Sennrich 2019).

    plus_one: the scale is 1 + weight, so that weights begin at 0 (Gemma).
    """

    type: Literal["rms"] = "rms"
    eps: Epsilon = 1e-6
    plus_one: bool = False


Norm = Annotated[LayerNorm | RMSNorm, Field(discriminator="type")]

# --- the two sub-layers (sections 3.2 and 3.3) -------------------------------------------------------------------


class Attention(Part):
    """Multi-head attention (section 3.2.2).

    heads: query heads. kv_heads: heads of keys and values, a divisor of `heads`; unset means as many as heads.
    head_dim: width of a head; unset means dim / heads. window: how many positions, itself included, a query sees
    (sliding window); unset means all. query_key_norm: a norm over queries and over keys; query_key_norm_over: over
    each "head" by itself, or over "all" heads together (OLMo-2). scale: factor on the scores; unset means head_dim **
    -0.5. softcap: scores s become softcap * tanh(s / softcap) (Gemma 2). bias: of the projections to queries, keys and
    values; output_bias: of the projection back; unset means the same. dropout: on the attention weights.
    """

    heads: Size
    kv_heads: Size | None = None
    head_dim: Size | None = None
    window: Size | None = None
    query_key_norm: Norm | None = None
    query_key_norm_over: Literal["head", "all"] = "head"
    scale: Factor | None = None
    softcap: Factor | None = None
    bias: bool = True
    output_bias: bool | None = None
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}")
        return self

    @property
    def key_value_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def biased_output(self) -> bool:
        return self.bias if self.output_bias is None else self.output_bias

    def width(self, dim: int) -> int:
        """Width of one head in a model of width `dim`."""
        return dim // self.heads if self.head_dim is None else self.head_dim


class PositionWise(Part):
    """max(0, x W1 + b1) W2 + b2, or with another activation (section 3.3, equation 2)."""

    type: Literal["position-wise"] = "position-wise"
    hidden: Size
    activation: Activation = "relu"
    bias: bool = True
    dropout: Probability = 0.0


class Gated(Part):
    """(act(x Wg) * x Wu) Wd: SwiGLU with silu, GEGLU with gelu (Shazeer 2020)."""

    type: Literal["gated"] = "gated"
    hidden: Size
    activation: Activation = "silu"
    bias: bool = False
    dropout: Probability = 0.0


class MixtureOfExperts(Part):
    """Many gated networks, of which a router picks a few for each token (Shazeer et al. 2017; Jiang et al. 2024).

    experts: how many there are; active: how many each token is sent to. hidden: width of each expert's hidden layer.
    normalize: the weights of the chosen experts are made to sum to 1.
    """

    type: Literal["mixture-of-experts"] = "mixture-of-experts"
    experts: Experts
    active: Size = 2
    hidden: Size
    activation: Activation = "silu"
    normalize: bool = True

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.active > self.experts:
            raise ValueError(f"active = {self.active} is more than experts = {self.experts}")
        return self


FeedForward = Annotated[PositionWise | Gated | MixtureOfExperts, Field(discriminator="type")]

# --- blocks and stacks (section 3.1) -----------------------------------------------------------------------------

Wiring = Literal["post", "pre", "sandwich", "output", "parallel", "parallel-shared"]


class Block(Part):
    """One layer of a stack: its sub-layers and how they are joined to the residual stream.

    wiring: "post" is norm(x + f(x)), the paper's; "pre" is x + f(norm(x)); "sandwich" is x + norm(f(norm(x)));
    "output" is x + norm(f(x)) (OLMo-2). "parallel" is x + attention(norm(x)) + feed_forward(norm'(x)) (GPT-NeoX);
    "parallel-shared" the same with one norm for both (GPT-J, Falcon).
    cross_attention: a decoder's attention to the encoder; unset means the same as `attention`, without a window.
    attention_norm: whether the self-attention has its norm (the first layer of ModernBERT reads the stream as it is).
    position: rotary positions of this block's own, or none; unset means the stack's.
    dropout: on each sub-layer's output before it is added (section 5.4).
    """

    attention: Attention
    cross_attention: Attention | None = None
    feed_forward: FeedForward
    norm: Norm = LayerNorm()
    attention_norm: bool = True
    wiring: Wiring = "post"
    position: Annotated[Rotary | NoPosition, Field(discriminator="type")] | None = None
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _norm_can_be_left_out(self) -> Self:
        if not self.attention_norm and self.wiring != "pre":
            raise ValueError(f"attention_norm = false with wiring = '{self.wiring}': only 'pre' can leave it out")
        return self

    @property
    def cross(self) -> Attention:
        if self.cross_attention is not None:
            return self.cross_attention
        return self.attention.model_copy(update={"window": None})


class OtherLayers(Part):
    """Layers, counted from 0, that are not like the rest: every second one with a window, say."""

    layers: tuple[Count, ...]
    block: Block


class Stack(Part):
    """`layers` blocks, all like `block` but those that `others` name.

    A stack whose wiring leaves the stream unnormalized ends with a norm of its own, of the kind that `block` has.
    """

    layers: Layers
    block: Block
    others: tuple[OtherLayers, ...] = ()
    position: Position = Sinusoidal()

    @model_validator(mode="after")
    def _others_fit(self) -> Self:
        named = [layer for other in self.others for layer in other.layers]
        for layer in named:
            if layer >= self.layers:
                raise ValueError(f"others names layer {layer}, but the layers are 0 to {self.layers - 1}")
            if named.count(layer) > 1:
                raise ValueError(f"others names layer {layer} twice")
        for other in self.others:
            for name in ("heads", "key_value_heads", "head_dim"):
                own, usual = getattr(other.block.attention, name), getattr(self.block.attention, name)
                if own != usual:
                    raise ValueError(
                        f"attention.{name} is {own} in some layers and {usual} in others; one cache holds all"
                    )
            if (other.block.wiring == "post") != (self.block.wiring == "post"):
                raise ValueError("wiring is 'post' in some layers and not in others")
        return self

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The block of each layer."""
        found = dict.fromkeys(range(self.layers), self.block)
        for other in self.others:
            found |= dict.fromkeys(other.layers, other.block)
        return tuple(found[layer] for layer in range(self.layers))


class Convolution(Part):
    """Each token's vector with its neighbours' added: x + act(W [width vectors around] + b) (after Kim 2014).

    It sees n-grams, which attention has to learn to see: on little text the larger gain.
    width: tokens that are read together, an odd number. dropout: on what is added.
    """

    width: Annotated[int, Field(ge=1)] = 3
    activation: Activation = "relu"
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _centred(self) -> Self:
        if self.width % 2 == 0:
            raise ValueError(f"width = {self.width} is not odd: as many tokens are read before a token as after it")
        return self


class Embedding(Part):
    """Token embeddings (section 3.4).

    scale: multiply by sqrt(dim). width: of the table, where it is not dim; a linear map leads to dim (ELECTRA).
    types: kinds of token, each with a vector that is added (BERT's segments A and B); 0 means none.
    norm: on the sum. dropout: on the sum with the positions. convolution: after that, over neighbouring tokens of an
    encoder-only model; unset means none.
    """

    scale: bool = True
    width: Size | None = None
    types: Count = 0
    norm: Norm | None = None
    dropout: Probability = 0.0
    convolution: Convolution | None = None


# --- heads of encoder-only models --------------------------------------------------------------------------------

Pooling = Literal["class", "mean", "max", "last"]


class NoHead(Part):
    """The encoder's output itself."""

    type: Literal["none"] = "none"


class MaskedLanguage(Part):
    """The token that stands behind a mask: project(norm(act(x W + b))) (BERT, Devlin et al. 2019).

    tied: the projection's matrix is the embedding's. bias: of the first map; output_bias: of the projection.
    """

    type: Literal["masked-language"] = "masked-language"
    activation: Activation = "gelu"
    norm: Norm = LayerNorm()
    tied: bool = True
    bias: bool = True
    output_bias: bool = True


Problem = Literal["single-label", "multi-label", "regression"]
"""What the scores of a text mean: one of the labels is right, any of them may be, or each is a number."""


class Classification(Part):
    """Scores of labels for the whole text.

    problem: what they mean. A single label of the first kind is right or wrong.
    pooling: which vector stands for the text: the first token's ("class"), the mean or maximum of all, or the last
    token's. activation: of a layer dim -> dim between the pooled vector and the labels; unset means no such layer.
    norm: after that layer. bias: of that layer. dropout: before the labels.
    """

    type: Literal["classification"] = "classification"
    labels: tuple[str, ...] = ()
    problem: Problem = "single-label"
    pooling: Pooling = "class"
    activation: Activation | None = "tanh"
    norm: Norm | None = None
    bias: bool = True
    dropout: Probability = 0.0


class Tagging(Part):
    """One label for each token.

    activation: of a layer dim -> dim before the labels; unset means no such layer. norm: after that layer. bias: of
    that layer. dropout: before the labels.
    """

    type: Literal["tagging"] = "tagging"
    labels: tuple[str, ...] = ()
    activation: Activation | None = None
    norm: Norm | None = None
    bias: bool = True
    dropout: Probability = 0.0


class SentenceEmbedding(Part):
    """A vector for the whole text.

    normalize: to length 1. longest: tokens, special ones included, that a text is cut to before it is embedded; unset
    means the model's max_length (many models are trained on shorter texts than they have positions for).
    """

    type: Literal["sentence-embedding"] = "sentence-embedding"
    pooling: Pooling = "mean"
    normalize: bool = True
    longest: Size | None = None


Head = Annotated[NoHead | MaskedLanguage | Classification | Tagging | SentenceEmbedding, Field(discriminator="type")]

# --- the three shapes --------------------------------------------------------------------------------------------


class EncoderDecoder(Part):
    """The model of the paper: an encoder, a decoder that attends to it, and a projection to the vocabulary.

    dim: width of the residual stream (d_model). vocab_size: filled in from the tokenizer where a recipe leaves it out.
    max_length: the longest sequence, in tokens, on either side.
    tied: which of source embedding, target embedding and output projection are one matrix (section 3.4):
    "all", "target" (target embedding and output projection), "embeddings" (the two embeddings), or "none".
    output_scale: factor on the decoder's output before the projection (T5 has dim ** -0.5 where all is tied).
    """

    kind: Literal["encoder-decoder"] = "encoder-decoder"
    dim: Size
    vocab_size: Size = 8_000
    max_length: Size = 256
    embedding: Embedding = Embedding()
    tied: Literal["all", "target", "embeddings", "none"] = "all"
    output_bias: bool = False
    output_scale: Factor = 1.0
    encoder: Stack
    decoder: Stack

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        _require_fit("encoder", self.encoder, self.dim, self.embedding, self.max_length, cross=False)
        _require_fit("decoder", self.decoder, self.dim, self.embedding, self.max_length, cross=True)
        _require_no_convolution(self.kind, self.embedding)
        _require_width(self.embedding, self.dim, tied=self.tied in ("all", "target"))
        return self


class DecoderOnly(Part):
    """A language model: a decoder that attends to nothing but its own past, and a projection to the vocabulary.

    dim: width of the residual stream. max_length: the longest sequence, in tokens.
    tied: embedding and output projection are one matrix.
    logit_softcap: logits z become logit_softcap * tanh(z / logit_softcap) (Gemma 2).
    """

    kind: Literal["decoder-only"] = "decoder-only"
    dim: Size
    vocab_size: Size = 8_000
    max_length: Size = 1024
    embedding: Embedding = Embedding(scale=False)
    tied: bool = True
    output_bias: bool = False
    logit_softcap: Factor | None = None
    decoder: Stack

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        _require_fit("decoder", self.decoder, self.dim, self.embedding, self.max_length, cross=False)
        _require_no_convolution(self.kind, self.embedding)
        _require_width(self.embedding, self.dim, tied=self.tied)
        return self


class EncoderOnly(Part):
    """An encoder with a head: masked language modelling, a label for a text, for each token, or a vector for a text.

    dim: width of the residual stream. max_length: the longest sequence, in tokens.
    pooler: a layer tanh(W x + b) on the first token's output, as BERT has; where there is one, "class" pooling
    reads it.
    """

    kind: Literal["encoder-only"] = "encoder-only"
    dim: Size
    vocab_size: Size = 8_000
    max_length: Size = 512
    embedding: Embedding = Embedding(scale=False)
    encoder: Stack
    pooler: bool = False
    head: Head = MaskedLanguage()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        _require_fit("encoder", self.encoder, self.dim, self.embedding, self.max_length, cross=False)
        _require_width(self.embedding, self.dim, tied=isinstance(self.head, MaskedLanguage) and self.head.tied)
        return self


# --- their recurrent rivals ----------------------------------------------------------------------------------------


class RecurrentEncoderDecoder(Part):
    """What translated before the Transformer (Sutskever et al. 2014; with attention, Luong et al. 2015).

    cell: of encoder and decoder. dim: width of every layer; of a bidirectional one, of both directions together.
    vocab_size: filled in from the tokenizer where a recipe leaves it out. max_length: the longest sequence, in tokens,
    on either side. tied: as in an encoder-decoder. The decoder's layers begin with the encoder's last states, each with
    that of its own layer, so there are as many in both.
    """

    kind: Literal["recurrent-encoder-decoder"] = "recurrent-encoder-decoder"
    cell: Cell = "lstm"
    dim: Size
    vocab_size: Size = 8_000
    max_length: Size = 256
    embedding: Embedding = Embedding()
    tied: Literal["all", "target", "embeddings", "none"] = "all"
    output_bias: bool = False
    encoder: RecurrentEncoder = RecurrentEncoder()
    decoder: RecurrentDecoder = RecurrentDecoder()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.encoder.layers != self.decoder.layers:
            raise ValueError(
                f"encoder.layers = {self.encoder.layers} is not decoder.layers = {self.decoder.layers}: each of the"
                " decoder's layers begins with the last state of one of the encoder's"
            )
        if self.encoder.bidirectional and self.dim % 2:
            raise ValueError(f"dim = {self.dim} is odd: a bidirectional encoder has half of it in each direction")
        _require_no_convolution(self.kind, self.embedding)
        _require_width(self.embedding, self.dim, tied=self.tied in ("all", "target"))
        return self


class RecurrentDecoderOnly(Part):
    """A recurrent language model (Mikolov et al. 2010; Zaremba et al. 2014).

    dim: width of every layer. max_length: the longest sequence, in tokens; the network itself has no limit.
    tied: embedding and output projection are one matrix.
    """

    kind: Literal["recurrent-decoder-only"] = "recurrent-decoder-only"
    cell: Cell = "lstm"
    dim: Size
    vocab_size: Size = 8_000
    max_length: Size = 1024
    embedding: Embedding = Embedding()
    tied: bool = True
    output_bias: bool = False
    decoder: Recurrence = Recurrence()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        _require_no_convolution(self.kind, self.embedding)
        _require_width(self.embedding, self.dim, tied=self.tied)
        return self


Transformer = EncoderDecoder | DecoderOnly | EncoderOnly
Recurrent = RecurrentEncoderDecoder | RecurrentDecoderOnly
Model = Annotated[Transformer | Recurrent, Field(discriminator="kind")]

KINDS: Mapping[str, type[Transformer] | type[Recurrent]] = {
    "encoder-decoder": EncoderDecoder,
    "decoder-only": DecoderOnly,
    "encoder-only": EncoderOnly,
    "recurrent-encoder-decoder": RecurrentEncoderDecoder,
    "recurrent-decoder-only": RecurrentDecoderOnly,
}


def _require_width(embedding: Embedding, dim: int, *, tied: bool) -> None:
    """Raise where a projection to the vocabulary is to be an embedding of another width."""
    if tied and embedding.width not in (None, dim):
        raise ValueError(f"embedding.width = {embedding.width} is not dim = {dim}: such an embedding cannot be tied")


def _require_no_convolution(kind: str, embedding: Embedding) -> None:
    """Raise where a model that must not see what comes next has a convolution, which does."""
    if embedding.convolution is not None:
        raise ValueError(f"embedding.convolution is set, but model.kind = '{kind}': it is for 'encoder-only'")


LARGEST_TABLE = 2**28
"""Numbers in a table of positions: 1,048,576 positions of heads of 128."""


def _require_fit(name: str, stack: Stack, dim: int, embedding: Embedding, length: int, *, cross: bool) -> None:
    """Raise where a stack's parts do not fit each other, its embedding, or a stream of width `dim`."""
    added = dim if embedding.width is None else embedding.width
    for block in dict.fromkeys(stack.blocks):
        attentions = {"attention": block.attention}
        if cross:
            attentions["cross_attention"] = block.cross
        elif block.cross_attention is not None:
            raise ValueError(f"{name}.block.cross_attention is set, but there is nothing to attend to")
        if cross and block.wiring.startswith("parallel"):
            raise ValueError(f"{name}.block.wiring = '{block.wiring}' is not for a decoder with cross-attention")
        for label, attention in attentions.items():
            where = f"{name}.block.{label}"
            if label == "cross_attention" and attention.window is not None:
                raise ValueError(f"{where}.window = {attention.window}: a window is for self-attention")
            if attention.head_dim is None and dim % attention.heads:
                raise ValueError(f"dim = {dim} is not a multiple of {where}.heads = {attention.heads}")
        for position in (stack.position, block.position):
            if isinstance(position, Rotary):
                rotated = int(block.attention.width(dim) * position.fraction)
                _require_small(name, length, 2 * rotated)
                if rotated < 2 or rotated % 2:
                    raise ValueError(
                        f"{name}.position rotates {rotated} dimensions of each head; it must be an even number"
                    )
    if isinstance(stack.position, Sinusoidal):
        _require_small(name, length, added)
    if isinstance(stack.position, Sinusoidal) and added % 2:
        raise ValueError(f"{name}.position is sinusoidal and needs an even width, not {added}")
    if isinstance(stack.position, RelativeBias):
        one_way = stack.position.buckets // 2 if name == "encoder" else stack.position.buckets
        if stack.position.max_distance <= one_way // 2:
            raise ValueError(
                f"{name}.position.max_distance = {stack.position.max_distance} is not more than {one_way // 2}, up to"
                f" which position.buckets = {stack.position.buckets} give each distance a bucket of its own"
            )


def _require_small(name: str, length: int, width: int) -> None:
    """Raise where a table of positions, which no file holds, would fill the memory."""
    if length * width > LARGEST_TABLE:
        raise ValueError(
            f"max_length = {length:,} makes {name}.position a table of {length * width:,} numbers, which is more than"
            f" {LARGEST_TABLE:,}"
        )
