"""An encoder with a head (BERT, Devlin et al. 2019, https://arxiv.org/abs/1810.04805)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sublayer import config, fast
from sublayer.errors import ConfigError
from sublayer.models.encoder import Encoder
from sublayer.models.heads import Classification, MaskedLanguage, SentenceEmbedding, Tagging
from sublayer.models.initialization import initialize
from sublayer.models.stack import longest, require_length
from sublayer.nn.embedding import Embedding
from sublayer.nn.linear import Linear
from sublayer.nn.tap import Tap


class EncoderOnly(nn.Module):
    """Tokens in; what the tree's head says out.

    head                  `forward` gives
    none                  the encoder's output             [B, S, D]
    masked-language       logits of each token             [B, S, V]
    classification        scores of the labels             [B, C]
    tagging               scores of each token's labels    [B, S, C]
    sentence-embedding    a vector                         [B, D]

    The tap `logits` sees it, whatever it is.
    """

    def __init__(self, c: config.EncoderOnly) -> None:
        super().__init__()
        self.config = c
        embedding = Embedding(c.embedding, c.vocab_size, c.dim)
        self.encoder = Encoder(c.encoder, embedding, c.dim, c.max_length)
        self.pooler = Linear(c.dim, c.dim) if c.pooler else None
        self.head = _build_head(c)
        self.output: Linear | None = None
        if isinstance(c.head, config.MaskedLanguage):
            self.output = Linear(c.dim, c.vocab_size, bias=c.head.output_bias)
            if c.head.tied:
                self.output.weight = embedding.tokens.weight
        self.logits = Tap()
        initialize(self)

    @property
    def device(self) -> torch.device:
        return self.encoder.embedding.tokens.weight.device

    def hidden(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """The encoder's output.

        Args:
            lengths: real tokens of each row (padding on the right).
            token_type_ids: kind of each token, where the embedding knows kinds.
            segments: number of each token's text, where several are packed in a row.

        Shape: tokens [B, S], lengths [B], token_type_ids and segments [B, S] int64 -> [B, S, D].
        """
        self.require_length(tokens, segments)
        return self.encoder(tokens, lengths, token_type_ids=token_type_ids, segments=segments).states

    def pooled(self, hidden: Tensor) -> Tensor | None:
        """What the pooler makes of the first token: tanh(W x + b), or None where there is no pooler.

        Shape: [B, S, D] -> [B, D].
        """
        return None if self.pooler is None else self.pooler(hidden[:, 0]).tanh()

    def read(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head makes of the encoder's output; for masked language modelling, before the projection.

        Shape: hidden [B, S, D], lengths [B] -> as the table above says; [B, S, D] for masked language modelling.
        """
        match self.head:
            case Classification():
                return self.head(hidden, lengths, self.pooled(hidden) if self.head.pooling == "class" else None)
            case SentenceEmbedding():
                return self.head(hidden, lengths)
            case None:
                return hidden
            case _:
                return self.head(hidden)

    def project(self, read: Tensor) -> Tensor:
        """Logits from what a masked-language head made. Shape: [..., D] -> [..., V]."""
        assert self.output is not None, "only a masked-language head has a projection to the vocabulary"
        return self.logits(self.output(read))

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """Shape: as in `hidden`; the result as the table above says."""
        return self.answer(self.hidden(tokens, lengths, token_type_ids, segments), lengths)

    def answer(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What `forward` gives, of the encoder's output. Shape: hidden [B, S, D], lengths [B]."""
        found = self.read(hidden, lengths)
        return self.logits(found) if self.output is None else self.project(found)

    def require_length(self, tokens: Tensor, segments: Tensor | None = None) -> None:
        """Raise `InputError` where a text has more tokens than the model has positions."""
        require_length("text", longest(tokens, segments, self.config.max_length), self.config.max_length)

    def lower(self) -> fast.Program:
        """The program of `hidden`: mark `states`. Of token types it knows the first.

        Raises:
            NotLowered: a part does not say how it is lowered.
        """
        program = fast.Program()
        program.mark("states", program.lower(self.encoder))
        return program


def _build_head(c: config.EncoderOnly) -> MaskedLanguage | Classification | Tagging | SentenceEmbedding | None:
    if isinstance(c.head, config.Classification | config.Tagging) and not c.head.labels:
        raise ConfigError("model.head.labels is empty", "Name the labels: labels = ['yes', 'no'].")
    match c.head:
        case config.NoHead():
            return None
        case config.MaskedLanguage() as head:
            return MaskedLanguage(head, c.dim)
        case config.Classification() as head:
            return Classification(head, c.dim)
        case config.Tagging() as head:
            return Tagging(head, c.dim)
        case config.SentenceEmbedding() as head:
            return SentenceEmbedding(head)
