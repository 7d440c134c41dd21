"""The typed tree that describes a model. A part's type selects the variant.

Reading guide: `EncoderDecoder` at the end is the root; everything above it is a part of it, in the order in which
the paper introduces them. Nothing here touches torch: the tree is enough for the JSON schema, the parameter count,
the FLOPs and the memory (`sublayer.config.cost`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sublayer.config.part import Part

Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]

# --- positions (section 3.5) -------------------------------------------------------------------------------------


class Sinusoidal(Part):
    """Sines and cosines of fixed frequencies, added to the embeddings (section 3.5).

    `layout`: the paper interleaves sin and cos; "halves" puts all sines first, as Marian and tensor2tensor do.
    """

    type: Literal["sinusoidal"] = "sinusoidal"
    base: PositiveFloat = 10_000.0
    layout: Literal["interleaved", "halves"] = "interleaved"


class Learned(Part):
    """One trained vector a position, added to the embeddings (section 3.5, last paragraph)."""

    type: Literal["learned"] = "learned"


class Unscaled(Part):
    """Rotary frequencies as trained."""

    type: Literal["none"] = "none"


class LinearScaling(Part):
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023)."""

    type: Literal["linear"] = "linear"
    factor: PositiveFloat


class NtkScaling(Part):
    """The base raised so that the slowest frequency is divided by `factor` and the fastest is kept ("NTK-aware")."""

    type: Literal["ntk"] = "ntk"
    factor: PositiveFloat


class YarnScaling(Part):
    """YaRN (Peng et al. 2023): interpolate slow frequencies, keep fast ones, and sharpen the attention a little."""

    type: Literal["yarn"] = "yarn"
    factor: PositiveFloat
    original_length: PositiveInt
    beta_fast: PositiveFloat = 32.0
    beta_slow: PositiveFloat = 1.0


class Llama3Scaling(Part):
    """The scaling of Llama 3.1: by wavelength, with a smooth passage between kept and divided frequencies."""

    type: Literal["llama3"] = "llama3"
    factor: PositiveFloat
    original_length: PositiveInt
    low_frequency_factor: PositiveFloat = 1.0
    high_frequency_factor: PositiveFloat = 4.0


RotaryScaling = Annotated[
    Unscaled | LinearScaling | NtkScaling | YarnScaling | Llama3Scaling, Field(discriminator="type")
]


class Rotary(Part):
    """Queries and keys rotated by their position (RoFormer, Su et al. 2021).

    `layout`: "halves" pairs dimension i with i + d/2 (Llama's), "interleaved" pairs 2i with 2i + 1 (the paper's).
    `fraction`: the part of each head that is rotated, from the front.
    """

    type: Literal["rotary"] = "rotary"
    base: PositiveFloat = 10_000.0
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    layout: Literal["halves", "interleaved"] = "halves"
    scaling: RotaryScaling = Unscaled()


class Alibi(Part):
    """A penalty on the scores that grows with the distance, at a slope of its own in each head (Press et al. 2021)."""

    type: Literal["alibi"] = "alibi"


class RelativeBias(Part):
    """T5's relative bias: a trained number per head and bucket of distances, added to the scores."""

    type: Literal["relative"] = "relative"
    buckets: Annotated[int, Field(ge=4)] = 32
    max_distance: PositiveInt = 128


class NoPosition(Part):
    """No positions: order is seen only through the causal mask."""

    type: Literal["none"] = "none"


Position = Annotated[Sinusoidal | Learned | Rotary | Alibi | RelativeBias | NoPosition, Field(discriminator="type")]

# --- normalization -----------------------------------------------------------------------------------------------


class LayerNorm(Part):
    """Mean and variance removed, then scaled and shifted (Ba et al. 2016)."""

    type: Literal["layer"] = "layer"
    eps: PositiveFloat = 1e-5
    bias: bool = True


class RMSNorm(Part):
    """Divided by the root mean square, then scaled (Zhang and Sennrich 2019)."""

    type: Literal["rms"] = "rms"
    eps: PositiveFloat = 1e-6


Norm = Annotated[LayerNorm | RMSNorm, Field(discriminator="type")]

# --- the two sub-layers (sections 3.2 and 3.3) -------------------------------------------------------------------


class Attention(Part):
    """Multi-head attention (section 3.2.2).

    heads: query heads. kv_heads: heads of keys and values, a divisor of `heads`; unset means as many as heads.
    head_dim: width of a head; unset means dim / heads. window: how many positions, itself included, a query sees
    (sliding window); unset means all. query_key_norm: a norm over each head's queries and keys.
    dropout: on the attention weights.
    """

    heads: PositiveInt
    kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    window: PositiveInt | None = None
    query_key_norm: Norm | None = None
    bias: bool = True
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}")
        return self

    @property
    def key_value_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    def width(self, dim: int) -> int:
        """Width of one head in a model of width `dim`."""
        return dim // self.heads if self.head_dim is None else self.head_dim


class PositionWise(Part):
    """max(0, x W1 + b1) W2 + b2, or with another activation (section 3.3, equation 2)."""

    type: Literal["position-wise"] = "position-wise"
    hidden: PositiveInt
    activation: Activation = "relu"
    bias: bool = True
    dropout: Probability = 0.0


class Gated(Part):
    """(act(x Wg) * x Wu) Wd: SwiGLU with silu, GEGLU with gelu (Shazeer 2020)."""

    type: Literal["gated"] = "gated"
    hidden: PositiveInt
    activation: Activation = "silu"
    bias: bool = False
    dropout: Probability = 0.0


FeedForward = Annotated[PositionWise | Gated, Field(discriminator="type")]

# --- blocks and stacks (section 3.1) -----------------------------------------------------------------------------


class Block(Part):
    """One layer of a stack: its sub-layers and how they are joined to the residual stream.

    wiring: "post" is norm(x + f(x)), the paper's; "pre" is x + f(norm(x)); "sandwich" is x + norm(f(norm(x))).
    cross_attention: a decoder's attention to the encoder; unset means the same as `attention`, without a window.
    dropout: on each sub-layer's output before it is added (section 5.4).
    """

    attention: Attention
    cross_attention: Attention | None = None
    feed_forward: FeedForward
    norm: Norm = LayerNorm()
    wiring: Literal["post", "pre", "sandwich"] = "post"
    dropout: Probability = 0.0

    @property
    def cross(self) -> Attention:
        if self.cross_attention is not None:
            return self.cross_attention
        return self.attention.model_copy(update={"window": None})


class Stack(Part):
    """`layers` blocks of one kind. A stack whose wiring leaves the stream unnormalized ends with a norm of its own."""

    layers: PositiveInt
    block: Block
    position: Position = Sinusoidal()


class Embedding(Part):
    """Token embeddings (section 3.4). scale: multiply by sqrt(dim). dropout: on the sum with the positions."""

    scale: bool = True
    norm: Norm | None = None
    dropout: Probability = 0.0


class EncoderDecoder(Part):
    """The model of the paper: an encoder, a decoder that attends to it, and a projection to the vocabulary.

    dim: width of the residual stream (d_model). vocab_size: filled in from the tokenizer where a recipe leaves it out.
    max_length: the longest sequence, in tokens, on either side.
    tied: which of source embedding, target embedding and output projection are one matrix (section 3.4):
    "all", "target" (target embedding and output projection), or "none".
    """

    kind: Literal["encoder-decoder"] = "encoder-decoder"
    dim: PositiveInt
    vocab_size: PositiveInt = 8_000
    max_length: PositiveInt = 256
    embedding: Embedding = Embedding()
    tied: Literal["all", "target", "none"] = "all"
    output_bias: bool = False
    encoder: Stack
    decoder: Stack

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            attentions = {"attention": stack.block.attention}
            if name == "decoder":
                attentions["cross_attention"] = stack.block.cross
            elif stack.block.cross_attention is not None:
                raise ValueError("encoder.block.cross_attention is set, but an encoder has nothing to attend to")
            for label, attention in attentions.items():
                where = f"{name}.block.{label}"
                if label == "cross_attention" and attention.window is not None:
                    raise ValueError(f"{where}.window = {attention.window}: a window is for self-attention")
                if attention.head_dim is None and self.dim % attention.heads:
                    raise ValueError(f"dim = {self.dim} is not a multiple of {where}.heads = {attention.heads}")
            if isinstance(stack.position, Sinusoidal) and self.dim % 2:
                raise ValueError(f"{name}.position is sinusoidal and needs an even dim, not {self.dim}")
            if isinstance(stack.position, Rotary):
                rotated = int(stack.block.attention.width(self.dim) * stack.position.fraction)
                if rotated < 2 or rotated % 2:
                    raise ValueError(
                        f"{name}.position rotates {rotated} dimensions of each head; it must be an even number"
                    )
        return self


Model = EncoderDecoder
