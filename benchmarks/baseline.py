"""How a careful user would train `torch.nn.Transformer` today: the yardstick of `time_to_quality.py`.

Bucketed batches under a budget of tokens, as sublayer's; cross-entropy with label smoothing, padding left out; fused
AdamW with a linear decay, or the paper's Adam with its inverse square root; pre-norm or post-norm; one matrix for both
embeddings and the output, or three; clipping at 1; bfloat16 where the machine is fast at it. A schedule goes by the
clock, so it ends when the time does. Which `Setting` is best is found by trying (`halving.py`).

Not given: what PyTorch has no part for (Muon, a moving average that costs nothing to ask for, oneDNN's weight layouts,
the allocator's settings). They are what is compared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from corpus import Corpus
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from torch_transformer import from_shape

from sublayer import config
from sublayer.data.batching import plan
from sublayer.data.sources import Pairs, grouped
from sublayer.tasks.scores import Scores, score

Decay = Literal["linear", "inverse square root"]


@dataclass(frozen=True)
class Setting:
    """What a user would try.

    peak: the learning rate at the end of the warm-up. tokens: of a batch, rows * (longest source + longest target).
    warmup: the part of the time that the warm-up takes.
    """

    optimizer: Literal["AdamW", "Adam"]
    peak: float
    tokens: int
    pre_norm: bool = True
    tied: bool = True
    warmup: float = 0.1

    @property
    def decay(self) -> Decay:
        return "linear" if self.optimizer == "AdamW" else "inverse square root"

    def __str__(self) -> str:
        norm, tied = "pre-norm" if self.pre_norm else "post-norm", "tied" if self.tied else "untied"
        return f"{self.optimizer} {self.peak:g}, {self.decay}, {self.tokens} tokens, {norm}, {tied}"


SETTINGS = (
    Setting("AdamW", 1e-3, 2000),
    Setting("AdamW", 2e-3, 2000),
    Setting("AdamW", 1e-3, 4000),
    Setting("AdamW", 2e-3, 4000),
    Setting("AdamW", 4e-3, 4000),
    Setting("AdamW", 2e-3, 8000),
    Setting("AdamW", 2e-3, 4000, tied=False),
    Setting("Adam", 1e-3, 2000),
    Setting("Adam", 2e-3, 4000),
    Setting("Adam", 5e-4, 2000, pre_norm=False),
)
"""What is tried: around what is usual for a model of this size, each of the choices on either side at least once."""


@dataclass(frozen=True)
class Point:
    """One validation: seconds of training (evaluation not counted), optimizer steps, greedy BLEU, loss a token."""

    seconds: float
    step: int
    bleu: float
    loss: float


class Baseline:
    """The model, its data, and the clock, which counts what happens in optimizer steps."""

    def __init__(
        self,
        corpus: Corpus,
        shape: config.EncoderDecoder,
        setting: Setting,
        *,
        seconds: float,
        dropout: float = 0.0,
        label_smoothing: float = 0.1,
        device: str = "cpu",
        precision: torch.dtype = torch.float32,
        seed: int = 1,
    ) -> None:
        torch.manual_seed(seed)
        self.corpus, self.setting, self.seconds, self.seed = corpus, setting, seconds, seed
        self.device, self.precision, self.pad = device, precision, corpus.tokenizer.pad_id
        c = shape.model_copy(update={"vocab_size": corpus.tokenizer.vocab_size})
        self.model = from_shape(c, dropout=dropout, tied=setting.tied, norm_first=setting.pre_norm, pad=self.pad)
        self.model.to(device)
        betas = (0.9, 0.98)
        self.optimizer = (
            torch.optim.AdamW(self.model.parameters(), lr=setting.peak, betas=betas, weight_decay=0.01, fused=True)
            if setting.optimizer == "AdamW"
            else torch.optim.Adam(self.model.parameters(), lr=setting.peak, betas=betas, eps=1e-9, fused=True)
        )
        self.loss = nn.CrossEntropyLoss(ignore_index=self.pad, label_smoothing=label_smoothing)
        self.step, self.clock = 0, 0.0

    def train(self, marks: list[float], tell: Callable[[Point], None]) -> list[Point]:
        """Train for the time given, validate at the first step past each mark and at the end.

        A run whose loss is no longer a number ends there; its last point has 0 BLEU and an infinite loss.
        """
        points: list[Point] = []
        left = [*sorted(mark for mark in marks if mark < self.seconds), self.seconds]
        for source, target in self._batches():
            begin = time.perf_counter()
            loss = self._update(source, target)
            self.clock += time.perf_counter() - begin
            if not math.isfinite(loss):
                points.append(Point(self.clock, self.step, 0.0, math.inf))
                tell(points[-1])
                break
            if self.clock < left[0]:
                continue
            left = [mark for mark in left if mark > self.clock]
            validation = self.corpus.splits.validation
            points.append(Point(self.clock, self.step, self.evaluate(validation).bleu, self.loss_of(validation)))
            tell(points[-1])
            if not left:
                break
        return points

    def evaluate(self, pairs: Pairs) -> Scores:
        """Return BLEU and chrF of greedy translations, each source once, against all its references."""
        sources, references = grouped(pairs)
        return score(self.translate(sources), references)

    @torch.inference_mode()
    def loss_of(self, pairs: Pairs) -> float:
        """Return the mean of -log P(token) over all target tokens, end markers included."""
        self.model.eval()
        total, tokens = 0.0, 0
        rows = self._rows(pairs)
        for first in range(0, len(rows), 64):
            source, target = (part.to(self.device) for part in self._collate(rows[first : first + 64]))
            with self._autocast():
                logits = self.model(source, target[:, :-1])
            wanted = target[:, 1:].flatten()
            lost = nn.functional.cross_entropy(
                logits.float().flatten(0, 1), wanted, ignore_index=self.pad, reduction="sum"
            )
            total, tokens = total + lost.item(), tokens + int((wanted != self.pad).sum())
        self.model.train()
        return total / tokens

    def translate(self, sentences: list[str], rows: int = 64) -> list[str]:
        """Return greedy translations, with sublayer's default limits on their lengths."""
        self.model.eval()
        tokenizer, limits = self.corpus.tokenizer, config.Decoding()
        encoded = [[*ids, tokenizer.end_id] for ids in tokenizer.encode(sentences)]
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
        found = [""] * len(encoded)
        for first in range(0, len(order), rows):
            chosen = order[first : first + rows]
            source = self._padded([torch.tensor(encoded[row]) for row in chosen]).to(self.device)
            most = [int(len(encoded[row]) * limits.max_ratio) + limits.max_extra for row in chosen]
            steps = min(max(most), self.model.positions.shape[0])
            with self._autocast():
                translated = self.model.greedy(source, start=tokenizer.start_id, end=tokenizer.end_id, steps=steps)
            texts = tokenizer.decode([ids[:limit] for ids, limit in zip(translated, most, strict=True)])
            for row, text in zip(chosen, texts, strict=True):
                found[row] = text.strip()
        self.model.train()
        return found

    def rate(self, done: float) -> float:
        """Return the learning rate when the part `done` (0 to 1) of the time is over."""
        warmup = self.setting.warmup
        if done < warmup:
            # The first step moves, too.
            return self.setting.peak * max(done / warmup, 0.01)
        if self.setting.decay == "linear":
            return self.setting.peak * max(0.0, (1 - done) / (1 - warmup))
        # The paper's (section 5.3, equation 3), with the time in the place of the steps, divided by its peak.
        return self.setting.peak * math.sqrt(warmup / done)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        pairs = self.corpus.encoded
        rows = self._with_marks(
            *([side[row].tolist() for row in range(len(pairs))] for side in (pairs.sources, pairs.targets))
        )
        epoch, budget = 0, config.Batching(tokens=self.setting.tokens)
        while True:
            batches = plan(pairs.source_lengths, pairs.target_lengths, budget, self.seed, epoch)
            yield from DataLoader(rows, batch_sampler=[b.tolist() for b in batches], collate_fn=self._collate)  # type: ignore[arg-type]
            epoch += 1

    def _rows(self, pairs: Pairs) -> list[tuple[Tensor, Tensor]]:
        tokenizer = self.corpus.tokenizer
        return self._with_marks(tokenizer.encode(pairs.sources), tokenizer.encode(pairs.targets))

    def _with_marks(self, sources: list[list[int]], targets: list[list[int]]) -> list[tuple[Tensor, Tensor]]:
        start, end = self.corpus.tokenizer.start_id, self.corpus.tokenizer.end_id
        return [
            (torch.tensor([*source, end]), torch.tensor([start, *target, end]))
            for source, target in zip(sources, targets, strict=True)
        ]

    def _collate(self, rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return self._padded([source for source, _ in rows]), self._padded([target for _, target in rows])

    def _padded(self, rows: list[Tensor]) -> Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=self.pad)

    def _update(self, source: Tensor, target: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.clock / self.seconds)
        source, target = source.to(self.device), target.to(self.device)
        with self._autocast():
            logits = self.model(source, target[:, :-1])
            loss = self.loss(logits.flatten(0, 1), target[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def _autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, self.precision, enabled=self.precision != torch.float32)
