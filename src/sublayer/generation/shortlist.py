"""A vocabulary shortlist: the few tokens that a translation may consist of, by the tokens of its source.

A third of a small translator's products make scores of words that cannot come. For each source token the shortlist
keeps the target tokens that IBM Model 1 (Brown et al. 1993, section 4) finds most probable in the training text, and
for every sentence the most frequent ones (Jean et al. 2015; L'Hostis et al. 2016). The softmax is taken over what is
left, so a log-probability is a little higher than without.

A sentence has a shortlist of its own, whatever others are translated with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sublayer.errors import CheckpointError
from sublayer.files import replacing
from sublayer.untrusted import is_file

FILE = "shortlist.safetensors"
NONE = -1
"""Stands behind the last candidate of a token that has fewer than others."""
ITERATIONS = 5
AT_ONCE = 4_000_000
"""Pairs of a source and a target token that are looked at together: some 200 MB."""

Integers = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Shortlist:
    """Candidates among the tokens of a vocabulary of V.

    always: tokens that every translation may have, sorted, int32 [F]. candidates: of each source token its N most
    probable target tokens, int32 [V, N], `NONE` behind the last. fingerprint: of the tokenizer whose tokens they are.
    """

    always: NDArray[np.int32]
    candidates: NDArray[np.int32]
    fingerprint: str

    def of(self, sources: Sequence[Sequence[int]], ends: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What the translations of some sources may consist of together, and each of them.

        Shape: -> the tokens, sorted, [C]; whether each may stand in a translation of each source, [B, C].

        Args:
            ends: tokens that any translation may have besides.
        """
        # `NONE` is the last column, which is no token's.
        own = np.zeros((len(sources), len(self.candidates) + 1), np.bool_)
        own[:, self.always] = own[:, list(ends)] = True
        for row, source in zip(own, sources, strict=True):
            row[self.candidates[np.asarray(source)]] = True
        tokens = np.flatnonzero(own[:, :NONE].any(axis=0))
        return tokens, own[:, tokens]


def build(
    sources: tuple[Integers, Integers], targets: tuple[Integers, Integers], vocabulary: int, fingerprint: str, *,
    each: int, frequent: int,
) -> Shortlist:  # fmt: skip
    """Make the shortlist of a training text.

    Args:
        sources, targets: the tokens of all sentences side by side, and where each sentence begins, with the end of the
            last: [sum of lengths], [pairs + 1]. each: candidates of a source token at most. frequent: how many tokens
            are candidates everywhere.
    """
    text = _Text(*sources, *targets, vocabulary)
    pairs, shares = text.translation_probabilities()
    source, target = np.divmod(pairs, vocabulary)
    # By source token, and the most probable first; of equal ones the lower token.
    order = np.lexsort((target, -shares, source))
    source, target = source[order], target[order]
    begins = np.searchsorted(source, np.arange(vocabulary))
    rank = np.arange(len(source)) - begins[source]
    candidates = np.full((vocabulary, each), NONE, np.int32)
    kept = rank < each
    candidates[source[kept], rank[kept]] = target[kept]
    counts = np.bincount(targets[0], minlength=vocabulary)
    most = np.argsort(-counts, kind="stable")[:frequent]
    return Shortlist(np.sort(most[counts[most] > 0]).astype(np.int32), candidates, fingerprint)


class _Text:
    """Sentences and their translations, as IBM Model 1 looks at them: every source token with every target token."""

    def __init__(
        self, sources: Integers, source_starts: Integers, targets: Integers, target_starts: Integers, vocabulary: int
    ) -> None:
        self.sources, self.targets, self.vocabulary = sources.astype(np.int64), targets.astype(np.int64), vocabulary
        self.source_starts, self.target_starts = source_starts, target_starts
        links = np.diff(source_starts) * np.diff(target_starts)
        parts = np.cumsum(links) // AT_ONCE
        bounds: list[int] = (np.flatnonzero(np.diff(parts)) + 1).tolist()
        self._parts = list(zip([0, *bounds], [*bounds, len(links)], strict=True))

    def translation_probabilities(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Each pair of tokens that occurs, as source * V + target, and p(target | source)."""
        known = np.unique(np.concatenate([np.unique(self._links(*part)[0]) for part in self._parts]))
        source = known // self.vocabulary
        shares = np.ones(len(known))
        for _ in range(ITERATIONS):
            expected = np.zeros(len(known))
            for part in self._parts:
                links, begins, lengths = self._links(*part)
                places = np.searchsorted(known, links)
                weights = shares[places]
                # A target token comes from one of its sentence's source tokens.
                weights /= np.repeat(np.add.reduceat(weights, begins), lengths)
                expected += np.bincount(places, weights, minlength=len(known))
            shares = expected / np.bincount(source, expected, minlength=self.vocabulary)[source]
        return known, shares

    def _links(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The pairs of tokens of some sentences, those of a target token side by side; where each of these begins, and
        how many it has."""
        places: NDArray[np.int64] = np.arange(int(self.target_starts[first]), int(self.target_starts[last]))
        sentence: NDArray[np.int64] = np.searchsorted(self.target_starts, places, side="right") - 1
        lengths = np.diff(self.source_starts)[sentence]
        # A sentence without a source says nothing, and its target tokens have no links.
        places, sentence, lengths = places[lengths > 0], sentence[lengths > 0], lengths[lengths > 0]
        begins = np.cumsum(lengths) - lengths
        source = np.arange(int(lengths.sum())) + np.repeat(self.source_starts[sentence] - begins, lengths)
        return self.sources[source] * self.vocabulary + np.repeat(self.targets[places], lengths), begins, lengths


def write_shortlist(folder: Path, shortlist: Shortlist) -> Path:
    """Write it into a model folder."""
    from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

    path = folder / FILE
    with replacing(path) as aside:
        tensors = {"always": shortlist.always, "candidates": shortlist.candidates}
        save_file(tensors, aside, {"tokenizer": shortlist.fingerprint})
    return path


def read_shortlist(folder: Path, fingerprint: str, vocabulary: int) -> Shortlist:
    """Read that of a model folder.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of another tokenizer.
    """
    from safetensors import SafetensorError, safe_open

    path, remedy = folder / FILE, f"Make it: sublayer shortlist {folder}"
    if not is_file(path):
        raise CheckpointError(f"{folder} has no shortlist", remedy)
    try:
        opened: Any = safe_open(path, "numpy")
        with opened as file:
            metadata: dict[str, str] | None = file.metadata()
            always: NDArray[Any] = file.get_tensor("always")
            candidates: NDArray[Any] = file.get_tensor("candidates")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", remedy) from None
    if (metadata or {}).get("tokenizer") != fingerprint:
        raise CheckpointError(f"{path} was made for another tokenizer", remedy)
    fine = always.ndim == 1 and candidates.ndim == 2 and len(candidates) == vocabulary
    fine = fine and _tokens(always, 0, vocabulary) and _tokens(candidates, NONE, vocabulary)
    if not fine:
        raise CheckpointError(f"{path} is damaged: it names tokens that the model does not have", remedy)
    return Shortlist(np.unique(always), candidates, fingerprint)


def _tokens(numbers: NDArray[Any], least: int, vocabulary: int) -> bool:
    """Whether these are ids from `least` on."""
    return numbers.dtype == np.int32 and (not numbers.size or least <= numbers.min() <= numbers.max() < vocabulary)
