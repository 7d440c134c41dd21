"""A label for each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from sublayer import config
from sublayer.models.heads import meaning
from sublayer.reading.reader import Progress, Reader, require_list


@dataclass(frozen=True)
class Classified:
    """What a classifier says of one text. probabilities: of every label, the most probable first; of a head whose
    problem is regression, its numbers, the highest first."""

    text: str | tuple[str, str]
    probabilities: dict[str, float]

    @property
    def label(self) -> str:
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        return self.probabilities[self.label]


class Classifier(Reader[config.Classification]):
    """A model with a classification head and its tokenizer."""

    needs: ClassVar = config.Classification

    @property
    def labels(self) -> tuple[str, ...]:
        """What a text may be, in the order of the head's scores."""
        return self.head.labels

    def classify(
        self,
        texts: Sequence[str | tuple[str, str]],
        *,
        batch_tokens: int = 8000,
        progress: Progress | None = None,
    ) -> list[Classified]:
        """The labels of texts, or of pairs of texts, in order.

        Args:
            batch_tokens: budget of a batch, texts * longest. progress: told how many have just been done.

        Raises:
            InputError: a text is empty or longer than the model's positions.
        """
        require_list(texts)  # pyright: ignore[reportArgumentType]
        labels = self.labels
        encoded = [
            self.tokenizer.encode_pairs([text])[0] if isinstance(text, tuple) else self.tokenizer.tokens([text])[0]
            for text in texts
        ]
        found: list[Classified | None] = [None] * len(texts)
        for rows, scores in self._each(encoded, batch_tokens=batch_tokens, progress=progress):
            probabilities = cast("list[list[float]]", meaning(self.head, scores.float()).tolist())
            for row, probability in zip(rows, probabilities, strict=True):
                ranked = sorted(range(len(labels)), key=lambda label, p=probability: -p[label])
                found[row] = Classified(texts[row], {labels[label]: probability[label] for label in ranked})
        return [one for one in found if one is not None]
