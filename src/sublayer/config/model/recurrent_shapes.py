"""The recurrent rivals of the Transformer, which answer what its shapes answer (`shapes`)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from sublayer.config.model.embedding import Embedding, Tied, projection, tables
from sublayer.config.model.recurrent import Cell, Recurrence, RecurrentDecoder, RecurrentEncoder
from sublayer.config.model.shapes import Flops
from sublayer.config.part import Part, Size

__all__ = ["RecurrentDecoderOnly", "RecurrentEncoderDecoder"]


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
    tied: Tied = "all"
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
        self.embedding.check(self.kind, self.dim, tied=self.tied in ("all", "target"))
        return self

    def parameters(self, *, active: bool = False) -> dict[str, int]:
        dim, attention = self.dim, self.decoder.attention.parameters(self.dim)
        output = projection(dim, self.vocab_size, tied=self.tied in ("all", "target"), bias=self.output_bias)
        return {
            **self.embedding.parameters(dim, self.vocab_size, tables(self.tied), sides=2),
            "encoder.recurrence": self.encoder.parameters(self.cell, dim),
            "decoder.recurrence": self.decoder.parameters(self.cell, dim),
            **{f"decoder.{part}": numbers for part, numbers in attention.items()},
            "output": output,
        }

    def matrices(self) -> int:
        return self.encoder.matrices(self.cell, self.dim) + self.decoder.matrices(self.cell, self.dim)

    def flops(self, source_length: int, target_length: int) -> Flops:
        dim, embedded, attention = self.dim, self.embedding.flops(self.dim), self.decoder.attention
        reading = source_length * (embedded + self.encoder.flops(self.cell, dim) + attention.source_flops(dim))
        one_more = embedded + self.decoder.flops(self.cell, dim) + attention.flops(dim, source_length)
        one_more += 2 * dim * self.vocab_size
        return Flops(3 * (reading / target_length + one_more), reading, one_more)

    def kept(self, tokens: int, size: int) -> int:
        """Source and target are half of the batch each."""
        source, target = tokens - tokens // 2, tokens // 2
        layers = source * self.encoder.kept(self.cell, self.dim) + target * self.decoder.kept(self.cell, self.dim)
        return round(layers + self.decoder.attention.kept(self.dim, source, target)) * size

    def projected(self, tokens: int) -> int:
        return tokens // 2

    def decoding(self, batch: int, rows: int, length: int, read: int) -> dict[str, int]:
        return {
            "state": rows * self.decoder.state(self.cell, self.dim),
            "cross_cache": batch * read * self.decoder.attention.looked_at(self.dim),
            "logits": 2 * rows * self.vocab_size,
        }


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
        self.embedding.check(self.kind, self.dim, tied=self.tied)
        return self

    def parameters(self, *, active: bool = False) -> dict[str, int]:
        return {
            **self.embedding.parameters(self.dim, self.vocab_size, ["embedding"]),
            "decoder.recurrence": self.decoder.parameters(self.cell, self.dim),
            "output": projection(self.dim, self.vocab_size, tied=self.tied, bias=self.output_bias),
        }

    def matrices(self) -> int:
        return self.decoder.matrices(self.cell, self.dim)

    def flops(self, source_length: int, target_length: int) -> Flops:
        reading = self.embedding.flops(self.dim) + self.decoder.flops(self.cell, self.dim)
        one_more = reading + 2 * self.dim * self.vocab_size
        return Flops(3 * one_more, source_length * reading, one_more)

    def kept(self, tokens: int, size: int) -> int:
        return round(tokens * self.decoder.kept(self.cell, self.dim)) * size

    def projected(self, tokens: int) -> int:
        return tokens

    def decoding(self, batch: int, rows: int, length: int, read: int) -> dict[str, int]:
        return {"state": rows * self.decoder.state(self.cell, self.dim), "logits": 2 * rows * self.vocab_size}
