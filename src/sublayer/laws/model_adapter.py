"""Model adapters: every shape behind the same few calls, over which each law is written once.

A law names the least that it asks for, and a shape derives from what it can give:

                      ModelAdapter   Decodes   Encodes   Packs   Prompts
    encoder-decoder   yes            yes       yes
    decoder-only      yes            yes                 yes     yes
    encoder-only      yes                      yes       yes

Those of the three that are Transformers are `Stacked` too; recurrent networks have no layers of attention.

Where a shape cannot give it, the law does not apply, and `absent` says why.

Shapes: B rows, S source and T target positions (see `Inputs`), N answers a text, C numbers an answer, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from sublayer import config, models
from sublayer.laws.inputs import Inputs
from sublayer.laws.measure import relative_error
from sublayer.models.backend import DecoderBackend
from sublayer.models.stack import Stack
from sublayer.nn.tap import hooked


@dataclass(frozen=True, eq=False)
class ModelAdapter(ABC):
    """What can be asked of any shape."""

    model: models.Model
    absent: ClassVar[str] = ""

    @abstractmethod
    def answer(self, inputs: Inputs) -> Tensor:
        """What the model says of a batch, all at once: [B, N, C], an answer a token, or N = 1 for a whole text."""

    @abstractmethod
    def real(self, inputs: Inputs) -> Tensor:
        """[B, N] bool: the answers that are not those of padding."""

    @property
    def stacks(self) -> list[Stack]:
        """The encoder and the decoder, as far as there are any; of a recurrent network what stands in their places."""
        found = (getattr(self.model, name, None) for name in ("encoder", "decoder"))
        return [stack for stack in found if stack is not None]

    def ways(self, inputs: Inputs) -> list[Tensor]:
        """The answers to a batch by every way in that the shape has, without those of padding."""
        return [self.answer(inputs)[self.real(inputs)]]

    def rounding(self, inputs: Inputs) -> float:
        """How far the answers move, relatively, when what is embedded is rounded otherwise.

        Every model makes something else of the last bit: this tells how well it is conditioned, and is about as far as
        its answers are from those in a wider type.
        """
        generator = torch.Generator().manual_seed(0)

        def otherwise(_module: nn.Module, _inputs: object, x: Tensor) -> Tensor:
            return x * (1 + torch.finfo(x.dtype).eps * torch.randn(x.shape, generator=generator).to(x))

        plain = self.answer(inputs)
        embeddings = {str(number): stack.embedding for number, stack in enumerate(self.stacks)}
        with hooked(embeddings, lambda _: otherwise):
            return relative_error(self.answer(inputs), plain, self.real(inputs))


@dataclass(frozen=True, eq=False)
class Stacked(ModelAdapter):
    """A shape whose tokens look at one another in layers."""

    absent: ClassVar[str] = "the model has no layers of attention"


@dataclass(frozen=True, eq=False)
class Decodes(ModelAdapter):
    """A shape that goes on with a text, token after token: it has `start` and `step`.

    Its answers are the logits of what follows each token of the target.
    """

    model: models.SequenceToSequence | models.CausalModel
    absent: ClassVar[str] = "the model answers all at once: it decodes nothing"

    @property
    def backend(self) -> DecoderBackend[Any]:
        """The model as what decodes; its state is its own affair."""
        return cast("DecoderBackend[Any]", self.model)

    def real(self, inputs: Inputs) -> Tensor:
        return inputs.real

    def ways(self, inputs: Inputs) -> list[Tensor]:
        return [*super().ways(inputs), self.decoded(inputs, [1, 2])[inputs.real]]

    def decoded(self, inputs: Inputs, chunks: Sequence[int]) -> Tensor:
        """The same logits by steps of so many tokens, over and over: [B, T, V]."""
        size = inputs.target.shape[1]
        state = self.backend.start(inputs.source, inputs.source_lengths, capacity=size)
        logits: list[Tensor] = []
        fed = 0
        while fed < size:
            tokens = inputs.target[:, fed : fed + chunks[len(logits) % len(chunks)]]
            logits.append(self.backend.step(tokens, state))
            fed += tokens.shape[1]
        return torch.cat(logits, dim=1)


@dataclass(frozen=True, eq=False)
class Attends(Decodes, Stacked):
    """A shape that decodes by attending to the keys and values that it keeps."""

    model: models.EncoderDecoder | models.DecoderOnly
    absent: ClassVar[str] = "the model keeps no keys and values"


@dataclass(frozen=True, eq=False)
class Encodes(ModelAdapter):
    """A shape with an encoder."""

    model: models.SequenceToSequence | models.EncoderOnly
    absent: ClassVar[str] = "the model has no encoder"

    @abstractmethod
    def states(self, inputs: Inputs) -> Tensor:
        """The encoder's output: [B, S, D]."""

    @abstractmethod
    def reading(self, inputs: Inputs) -> Tensor:
        """Numbers that every real token of a source has its part in: [B, .., C]."""


@dataclass(frozen=True, eq=False)
class Packs(ModelAdapter):
    """A shape that takes several texts in one row."""

    model: models.CausalModel | models.EncoderOnly
    absent: ClassVar[str] = "pairs of texts are not packed"

    @abstractmethod
    def texts(self, inputs: Inputs) -> list[Inputs]:
        """The texts of a batch, each whole, as the source of a row by itself."""

    @abstractmethod
    def hidden(self, text: Inputs, segments: Tensor | None = None) -> Tensor:
        """What comes out of the stack for the source: [B, S, D].

        Args:
            segments: number of each token's text, [B, S] int64, where several share a row.
        """


@dataclass(frozen=True, eq=False)
class Pairs(Decodes, Encodes):
    """An encoder-decoder: it reads the source, and is fed the target."""

    model: models.SequenceToSequence

    def answer(self, inputs: Inputs) -> Tensor:
        return self.model(inputs.source, inputs.source_lengths, inputs.target)

    def states(self, inputs: Inputs) -> Tensor:
        return self.model.encode(inputs.source, inputs.source_lengths).states

    def reading(self, inputs: Inputs) -> Tensor:
        # Through the cross-attention, from which padding must be kept as well.
        return self.answer(inputs)


@dataclass(frozen=True, eq=False)
class Prompts(Decodes, Packs):
    """A decoder by itself: source and target are one text. Decoding pads sources of several lengths on the left."""

    model: models.CausalModel
    absent: ClassVar[str] = "the model pads texts on the right only"

    def answer(self, inputs: Inputs) -> Tensor:
        tokens, begin = self._joined(inputs)
        size = inputs.target.shape[1]
        logits = self.model(tokens, None if inputs.source_lengths is None else begin + size)
        target = begin.unsqueeze(1) + torch.arange(size, device=tokens.device)
        return logits.gather(1, target.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))

    def texts(self, inputs: Inputs) -> list[Inputs]:
        return [_text(self._joined(inputs.alone(row))[0], inputs.vocab_size) for row in range(inputs.rows)]

    def hidden(self, text: Inputs, segments: Tensor | None = None) -> Tensor:
        return self.model.hidden(text.source, text.source_lengths, segments)

    def _joined(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Source and target as one text, padded on the right: [B, S + T]; and where its target begins: [B]."""
        (rows, source), target = inputs.source.shape, inputs.target.shape[1]
        place = torch.arange(source + target, device=inputs.source.device)
        begin = torch.full_like(place[:1], source).expand(rows)
        begin = begin if inputs.source_lengths is None else inputs.source_lengths
        past = place - begin.unsqueeze(1)
        # What of the source is padding comes last.
        index = torch.where(past < 0, place, torch.where(past < target, source + past, place - target))
        return torch.cat((inputs.source, inputs.target), dim=1).gather(1, index), begin


@dataclass(frozen=True, eq=False)
class Texts(Encodes, Packs, Stacked):
    """An encoder by itself, asked through its head."""

    model: models.EncoderOnly

    def answer(self, inputs: Inputs) -> Tensor:
        said = self.model(inputs.source, inputs.source_lengths, inputs.token_type_ids)
        return said.unsqueeze(1) if self._of_whole_texts else said

    def real(self, inputs: Inputs) -> Tensor:
        return torch.ones_like(inputs.source[:, :1], dtype=torch.bool) if self._of_whole_texts else inputs.source_real

    def states(self, inputs: Inputs) -> Tensor:
        return self.model.hidden(inputs.source, inputs.source_lengths, inputs.token_type_ids)

    def reading(self, inputs: Inputs) -> Tensor:
        # Not through the head, which may look at the first token alone.
        return self.states(inputs).masked_fill(~inputs.source_real.unsqueeze(-1), 0.0)

    def texts(self, inputs: Inputs) -> list[Inputs]:
        return [inputs.alone(row) for row in range(inputs.rows)]

    def hidden(self, text: Inputs, segments: Tensor | None = None) -> Tensor:
        return self.model.hidden(text.source, text.source_lengths, text.token_type_ids, segments)

    @property
    def _of_whole_texts(self) -> bool:
        return isinstance(self.model.config.head, config.Classification | config.SentenceEmbedding)


@dataclass(frozen=True, eq=False)
class StackedPairs(Pairs, Attends):
    """An encoder-decoder that is a Transformer."""

    model: models.EncoderDecoder


@dataclass(frozen=True, eq=False)
class StackedPrompts(Prompts, Attends):
    """A decoder by itself that is a Transformer."""

    model: models.DecoderOnly


def adapt(model: models.Model) -> Pairs | Prompts | Texts:
    """The adapter of `model`."""
    match model:
        case models.EncoderDecoder():
            return StackedPairs(model)
        case models.DecoderOnly():
            return StackedPrompts(model)
        case models.RecurrentEncoderDecoder():
            return Pairs(model)
        case models.RecurrentDecoderOnly():
            return Prompts(model)
        case models.EncoderOnly():
            return Texts(model)


def packed(rows: Sequence[Sequence[Inputs]]) -> tuple[Inputs, Tensor]:
    """Several texts in each row, all rows of one length, and the number of each token's text: [R, S] int64."""
    tokens = side_by_side([[text.source for text in row] for row in rows])
    segments = side_by_side([[torch.full_like(text.source, n) for n, text in enumerate(row)] for row in rows])
    token_type_ids = [[text.token_type_ids for text in row if text.token_type_ids is not None] for row in rows]
    return _text(tokens, rows[0][0].vocab_size, side_by_side(token_type_ids) if token_type_ids[0] else None), segments


def side_by_side(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """R rows of parts [1, s, ...], one after the other: [R, S, ...]."""
    return torch.cat([torch.cat(list(row), dim=1) for row in rows])


def _text(tokens: Tensor, vocab_size: int, token_type_ids: Tensor | None = None) -> Inputs:
    """Whole texts and nothing else, [B, S]."""
    return Inputs(tokens, None, tokens[:, :0], None, vocab_size, token_type_ids)
