"""What each attention head does, on the user's own text.

A score is a share of attention: how much of what a head gives away falls on a certain kind of token, averaged over all
the tokens that look (the queries) and have such a token to look at. With a[q, k] the weight that query q gives key k:

    previous    a[q, q - 1]                                         Voita et al. 2019, Clark et al. 2019
    next        a[q, q + 1]; of a causal stack there is none
    itself      a[q, q]
    first       a[q, 0], of queries q > 0: an "attention sink"      Xiao et al. 2023
    separator   sum over k > 0 that are special tokens              Clark et al. 2019
    same        sum over other k that are the same token            Wang et al. 2022, "duplicate token heads"
    induction   sum over k whose token before is q's own:           Olsson et al. 2022, "prefix matching"
                "A B ... A" looks at B
    diagonal    of cross-attention: sum over k within one token     (monotonic alignment)
                of (q + 1/2) S / T - 1/2
    aligned     of cross-attention, where the right links are known: sum over the k that q is linked to

and two that are no shares:

    entropy     - sum over k of a[q, k] ln a[q, k], in nats: 0 looks at one token alone      Vig and Belinkov 2019
    distance    sum over k of a[q, k] |q - k|, in tokens, of self-attention                   Vig and Belinkov 2019

In cross-attention q is the token that is being predicted, so `same` says how much a head looks for names to copy.
Special tokens are no `same` and no `induction`, and no queries of `separator`. A causal stack's first token
can see itself alone and is no query of anything. `chance` is what attention spread evenly over all that q may see would
score (windows left aside): without it a number says little, above all on short texts. What a head looks at is not yet
what it is for: a head that gives all to the first token may do nothing at all, which `ablation` tells.

https://arxiv.org/abs/1905.09418 (Voita), 1906.04341 (Clark), 1906.04284 (Vig), 2209.11895 (Olsson), 2211.00593 (Wang),
2309.17453 (Xiao).

Shapes: L layers, H heads, T queries, S keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sublayer.errors import InputError
from sublayer.inspection.examples import Example, batches
from sublayer.inspection.groups import Group, groups
from sublayer.inspection.recording import record
from sublayer.models import Transformer as Model
from sublayer.models.evaluating import evaluating

SHARES = ("previous", "next", "itself", "first", "separator", "same", "induction", "diagonal", "aligned")
"""Scores between 0 and 1."""

MEASURES = (*SHARES, "entropy", "distance")
"""All scores, in the order in which they are shown."""

Links = Iterable[tuple[int, int]]
"""Which target token belongs to which source token of a pair, both counted from 0 without markers."""


@dataclass(frozen=True, eq=False)
class HeadScores:
    """The scores of all heads of one kind of attention.

    values: of each score that could be had a float64 tensor [L, H]. chance: what even attention would score.
    counts: how many queries each is the mean of.
    """

    group: Group
    values: Mapping[str, Tensor]
    chance: Mapping[str, float]
    counts: Mapping[str, int]

    def role(self, layer: int, head: int, threshold: float = 0.5) -> str:
        """The name of the share that a head gives most to, if that is more than `threshold` and than chance; else
        nothing."""
        shares = {name: float(self.values[name][layer, head]) for name in SHARES if name in self.values}
        best = max(shares, key=lambda name: shares[name], default="")
        return best if best and shares[best] > max(threshold, self.chance[best]) else ""


def head_scores(
    model: Model,
    examples: Sequence[Example],
    special_ids: Iterable[int],
    *,
    links: Sequence[Links] | None = None,
    tokens: int = 1024,
    progress: Callable[[int], None] | None = None,
) -> list[HeadScores]:
    """The scores of every head on these examples, a value for each kind of attention.

    Args:
        special_ids: the tokenizer's special tokens. links: of each example which target token belongs to which source
            token, where that is known. tokens: budget of a batch. progress: told how many examples have just been read.

    Raises:
        InputError: there is no example.
    """
    if not examples:
        raise InputError("there is no text to score heads on", "Give at least one.")
    if links is not None and len(links) != len(examples):
        raise InputError(f"there are links of {len(links)} examples, but {len(examples)} examples")
    special = torch.tensor(sorted(special_ids), dtype=torch.int64)
    sums = [_Sums(group) for group in groups(model)]
    with evaluating(model):
        for some in batches(model, examples, tokens):
            taps = [tap for one in sums for tap in one.group.taps("weights")]
            with torch.no_grad(), record(model, *taps) as seen:
                some.hidden(model)
            for one in sums:
                for place, row in enumerate(some.rows):
                    rows, columns = _ids(one.group, examples[row])
                    weights = [seen[tap][0][place, :, : len(rows), : len(columns)] for tap in one.group.taps("weights")]
                    one.add(weights, rows, columns, special, None if links is None else links[row])
            if progress is not None:
                progress(len(some.rows))
    return [one.scores() for one in sums]


def patterns(
    group: Group, rows: Tensor, columns: Tensor, special: Tensor, links: Links | None = None
) -> dict[str, Tensor]:
    """For each share, which keys count for which query, among those that the query may see.

    Shape: rows [T] and columns [S] int64, the tokens; special int64 -> boolean [T, S] each.
    """
    queries, keys = len(rows), len(columns)
    q, k = torch.arange(queries).unsqueeze(1), torch.arange(keys).unsqueeze(0)
    special_row, special_column = torch.isin(rows, special).unsqueeze(1), torch.isin(columns, special).unsqueeze(0)
    same = (rows.unsqueeze(1) == columns.unsqueeze(0)) & ~special_row
    found = {
        "first": (k == 0) & (q > 0),
        "separator": special_column & (k > 0) & ~special_row,
    }
    if group.name == "cross":
        found |= {"same": same, "diagonal": (k - (q.double() + 0.5) * keys / queries + 0.5).abs() <= 1}
        if links is not None:
            found["aligned"] = _linked(links, queries, keys)
    else:
        after_same = torch.zeros_like(same)
        after_same[:, 1:] = (same & (k != q))[:, :-1]
        found |= {"previous": k == q - 1, "next": k == q + 1, "itself": k == q}
        found |= {"same": same & (k != q), "induction": after_same & (k != q)}
    seen = visible(group, queries, keys)
    return {name: pattern & seen for name, pattern in found.items()}


def visible(group: Group, queries: int, keys: int) -> Tensor:
    """Which key a query may see; nothing for the first token of a causal stack, which has no choice.

    Shape: -> boolean [T, S].
    """
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if group.causal:
        seen = seen.tril()
        seen[0] = False
    return seen


def _linked(links: Links, queries: int, keys: int) -> Tensor:
    linked = torch.zeros(queries, keys, dtype=torch.bool)
    for target, source in links:
        if not (0 <= target < queries and 0 <= source < keys):
            raise InputError(
                f"the link {target}-{source} leaves a pair of {queries} target and {keys} source tokens",
                "Count tokens from 0, as the tokenizer cuts them.",
            )
        linked[target, source] = True
    return linked


def _ids(group: Group, example: Example) -> tuple[Tensor, Tensor]:
    """The tokens of rows and columns. Cross-attention's rows are the tokens that are predicted."""
    match group.name:
        case "cross":
            rows, columns = example.wanted, example.tokens
        case "decoder":
            rows = columns = example.fed or example.tokens
        case "encoder":
            rows = columns = example.tokens
    return torch.tensor(rows), torch.tensor(columns)


class _Sums:
    """Attention given away, and by how many, until all examples are read."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._chance: dict[str, float] = {}

    def add(
        self, weights: Sequence[Tensor], rows: Tensor, columns: Tensor, special: Tensor, links: Links | None
    ) -> None:
        """Shape: weights of each layer [H, T, S], rows [T], columns [S]."""
        seen = visible(self.group, len(rows), len(columns))
        choice, chooses = seen.sum(1).double().clamp(min=1), int(seen.any(1).sum())
        counted: dict[str, Tensor] = {}
        for name, pattern in patterns(self.group, rows, columns, special, links).items():
            counted[name] = pattern.double()
            self._note(name, int(pattern.any(1).sum()), (counted[name].sum(1) / choice).sum().item())
        if self.group.name != "cross":
            place = torch.arange(len(rows))
            counted["distance"] = (place.unsqueeze(1) - place).abs().double() * seen
            self._note("distance", chooses, (counted["distance"].sum(1) / choice).sum().item())
        self._note("entropy", chooses, choice.log().sum().item())
        table = torch.stack(list(counted.values())).flatten(1)
        totals: list[Tensor] = []
        for layer in weights:
            wide = layer.double().cpu()
            spread = -torch.xlogy(wide, wide).sum(-1)[:, seen.any(1)].sum(-1)
            totals.append(torch.cat((wide.flatten(1) @ table.T, spread.unsqueeze(1)), dim=1))
        for name, total in zip([*counted, "entropy"], torch.stack(totals).unbind(-1), strict=True):
            self._sums[name] = total + self._sums.get(name, 0)

    def _note(self, name: str, count: int, even: float) -> None:
        self._counts[name] = count + self._counts.get(name, 0)
        self._chance[name] = even + self._chance.get(name, 0.0)

    def scores(self) -> HeadScores:
        known = [name for name in MEASURES if self._counts.get(name)]
        return HeadScores(
            self.group,
            {name: self._sums[name] / self._counts[name] for name in known},
            {name: self._chance[name] / self._counts[name] for name in known},
            {name: self._counts[name] for name in known},
        )
