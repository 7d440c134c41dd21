"""The three shapes of a Transformer: the roots of the tree, each the sum of its parts.

What all five shapes answer, the recurrent ones too, is what `sublayer.config.cost` sums:

    parameters(active=)    by part, in the order in which a token meets them. What is tied is counted once, in the
                           embedding: an output that is tied has only its bias, if any. active: only those that one
                           token is computed with (of a mixture of experts, those that it is sent to)
    matrices()             numbers in the matrices inside the blocks: those that Muon takes
    flops(S, T)            operations of the matrix products for S tokens that are read and T that are made
    kept(tokens, size)     bytes kept of a batch for the backward pass, with products in numbers of `size` bytes; of a
                           Transformer also where some is computed again, or shared by several processes
    projected(tokens)      how many tokens of a batch the loss projects to the vocabulary
    decoding(...)          numbers held, by what holds them, beside the weights
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from sublayer.config.model.embedding import Embedding, Tied, projection, tables
from sublayer.config.model.heads import Head, MaskedLanguage
from sublayer.config.model.stack import Recomputed, Stack
from sublayer.config.part import Factor, Part, Size

__all__ = ["DecoderOnly", "EncoderDecoder", "EncoderOnly", "Flops"]


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one text (or pair of texts); a multiplication with its addition counts as two.

    Only pairs of positions that may attend to each other count, and only the experts that a token is sent to. Norms,
    softmax, activations, biases, positions and the optimizer are left out: they move memory more than they compute, and
    are below 2% at D = 512.

    training: forward and backward (twice the forward), a token: of the target where there is a source, whose share is
    included; of the text otherwise. An encoder-decoder trains on a pair of S and T, a language model on a text of T, an
    encoder on one of S.
    encoding: what is read before the first token is made, once a text: an encoder with the cross-attention's keys and
    values, or a language model's prompt. For a model that only reads, all of it, its head included.
    decoding: one token more with a cache, when it is the last of T (after a prompt of S, in a language model), the
    projection to the vocabulary included; 0 for a model that only reads.
    """

    training: float
    encoding: int
    decoding: int


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
    tied: Tied = "all"
    output_bias: bool = False
    output_scale: Factor = 1.0
    encoder: Stack
    decoder: Stack

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        width = self.embedding.table_width(self.dim)
        self.encoder.check("encoder", self.kind, self.dim, width, self.max_length, cross=False)
        self.decoder.check("decoder", self.kind, self.dim, width, self.max_length, cross=True)
        self.embedding.check(self.kind, self.dim, tied=self.tied in ("all", "target"))
        return self

    @property
    def stacks(self) -> dict[str, tuple[Stack, bool]]:
        """By name, with whether the stack attends to an encoder."""
        return {"encoder": (self.encoder, False), "decoder": (self.decoder, True)}

    def parameters(self, *, active: bool = False) -> dict[str, int]:
        dim, length = self.dim, self.max_length
        width = self.embedding.table_width(dim)
        output = projection(dim, self.vocab_size, tied=self.tied in ("all", "target"), bias=self.output_bias)
        return (
            self.embedding.parameters(dim, self.vocab_size, tables(self.tied), sides=2)
            | self.encoder.parameters("encoder", dim, width, length, active=active)
            | self.decoder.parameters("decoder", dim, width, length, cross=True, active=active)
            | {"output": output}
        )

    def matrices(self) -> int:
        return self.encoder.matrices(self.dim) + self.decoder.matrices(self.dim, cross=True)

    def flops(self, source_length: int, target_length: int) -> Flops:
        dim, embedded = self.dim, self.embedding.flops(self.dim)
        each = embedded + self.decoder.source_flops(dim)
        encoding = self.encoder.read_flops(dim, source_length, causal=False) + source_length * each
        # Beside the decoder's own layers: the embedding, attention to the source, and the projection.
        beside = embedded + self.decoder.cross_flops(dim, source_length) + 2 * dim * self.vocab_size
        made = self.decoder.read_flops(dim, target_length, causal=True) + target_length * beside
        one_more = self.decoder.step_flops(dim, target_length) + beside
        return Flops(3 * (encoding + made) / target_length, encoding, one_more)

    def kept(self, tokens: int, size: int, recomputed: Recomputed = "none", tensor: int = 1) -> int:
        """Source and target are half of the batch each."""
        dim, embedded = self.dim, self.embedding.kept(self.dim, size)
        source = self.encoder.kept(dim, size, recomputed=recomputed, tensor=tensor) + embedded
        source += (self.decoder.cross_cached(dim) // tensor + dim) * size
        target = self.decoder.kept(dim, size, cross=True, recomputed=recomputed, tensor=tensor) + embedded
        return (tokens - tokens // 2) * source + tokens // 2 * target

    def projected(self, tokens: int) -> int:
        return tokens // 2

    def decoding(self, batch: int, rows: int, length: int, read: int) -> dict[str, int]:
        return {
            "self_cache": rows * length * self.decoder.cached(self.dim),
            "cross_cache": batch * read * self.decoder.cross_cached(self.dim),
            "logits": 2 * rows * self.vocab_size,
        }


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
        width = self.embedding.table_width(self.dim)
        self.decoder.check("decoder", self.kind, self.dim, width, self.max_length, cross=False)
        self.embedding.check(self.kind, self.dim, tied=self.tied)
        return self

    @property
    def stacks(self) -> dict[str, tuple[Stack, bool]]:
        """By name, with whether the stack attends to an encoder."""
        return {"decoder": (self.decoder, False)}

    def parameters(self, *, active: bool = False) -> dict[str, int]:
        dim, width = self.dim, self.embedding.table_width(self.dim)
        return (
            self.embedding.parameters(dim, self.vocab_size, ["embedding"])
            | self.decoder.parameters("decoder", dim, width, self.max_length, active=active)
            | {"output": projection(dim, self.vocab_size, tied=self.tied, bias=self.output_bias)}
        )

    def matrices(self) -> int:
        return self.decoder.matrices(self.dim)

    def flops(self, source_length: int, target_length: int) -> Flops:
        dim, embedded, projected = self.dim, self.embedding.flops(self.dim), 2 * self.dim * self.vocab_size
        made = self.decoder.read_flops(dim, target_length, causal=True) + target_length * (embedded + projected)
        prompt = self.decoder.read_flops(dim, source_length, causal=True) + source_length * embedded
        one_more = self.decoder.step_flops(dim, source_length + target_length) + embedded + projected
        return Flops(3 * made / target_length, prompt, one_more)

    def kept(self, tokens: int, size: int, recomputed: Recomputed = "none", tensor: int = 1) -> int:
        layers = self.decoder.kept(self.dim, size, recomputed=recomputed, tensor=tensor)
        return tokens * (layers + self.embedding.kept(self.dim, size))

    def projected(self, tokens: int) -> int:
        return tokens

    def decoding(self, batch: int, rows: int, length: int, read: int) -> dict[str, int]:
        cache = rows * (read + length) * self.decoder.cached(self.dim)
        return {"self_cache": cache, "logits": 2 * rows * self.vocab_size}


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
        width = self.embedding.table_width(self.dim)
        self.encoder.check("encoder", self.kind, self.dim, width, self.max_length, cross=False)
        self.embedding.check(self.kind, self.dim, tied=isinstance(self.head, MaskedLanguage) and self.head.tied)
        return self

    @property
    def stacks(self) -> dict[str, tuple[Stack, bool]]:
        """By name, with whether the stack attends to an encoder."""
        return {"encoder": (self.encoder, False)}

    def parameters(self, *, active: bool = False) -> dict[str, int]:
        dim, width = self.dim, self.embedding.table_width(self.dim)
        return (
            self.embedding.parameters(dim, self.vocab_size, ["embedding"])
            | self.encoder.parameters("encoder", dim, width, self.max_length, active=active)
            | ({"pooler": (dim + 1) * dim} if self.pooler else {})
            | self.head.parameters(dim, self.vocab_size)
        )

    def matrices(self) -> int:
        return self.encoder.matrices(self.dim)

    def flops(self, source_length: int, target_length: int) -> Flops:
        forward = self.encoder.read_flops(self.dim, source_length, causal=False)
        forward += source_length * self.embedding.flops(self.dim)
        forward += self.head.flops(self.dim, self.vocab_size, source_length, pooler=self.pooler)
        return Flops(3 * forward / source_length, forward, 0)

    def kept(self, tokens: int, size: int, recomputed: Recomputed = "none", tensor: int = 1) -> int:
        """The layer between the encoder and its head is not counted."""
        layers = self.encoder.kept(self.dim, size, recomputed=recomputed, tensor=tensor)
        return tokens * (layers + self.embedding.kept(self.dim, size))

    def projected(self, tokens: int) -> int:
        return tokens if self.head.projects else 0

    def decoding(self, batch: int, rows: int, length: int, read: int) -> dict[str, int]:
        states = {"states": batch * read * self.dim}
        return {**states, "logits": batch * read * self.vocab_size} if self.head.projects else states
