"""How a user would train `torch.nn.Transformer` today, honestly done: the yardstick of `time_to_quality.py`.

PyTorch's translation tutorial and the paper's recipe: 128 random rows a batch, padded by `pad_sequence`; cross-entropy
with label smoothing that ignores padding; Adam with betas 0.9 and 0.98 under the paper's schedule; clipping at 1. The
paper's 4,000 steps of warm-up would outlast a short run, and its peak is far too high after a short warm-up, so
whoever calls this chooses both, as a user would after a few tries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from corpus import Corpus
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from torch_transformer import from_shape

from sublayer import config
from sublayer.data.sources import Pairs
from sublayer.data.split import grouped
from sublayer.training.evaluation import Scores, score

ROWS = 128
# Steps after which the speed is known well enough to set the warm-up.
MEASURED = 20


@dataclass(frozen=True)
class Point:
    """One validation: seconds of training (evaluation not counted), optimizer steps, greedy BLEU."""

    seconds: float
    step: int
    bleu: float
    loss: float


class Baseline:
    """The model, its data, and the clock.

    peak: learning rate at the end of the warm-up, after which it falls with the inverse square root of the step.
    share: the part of the steps that the warm-up takes (at most the paper's 4,000 steps).
    """

    def __init__(
        self,
        corpus: Corpus,
        shape: config.EncoderDecoder,
        *,
        seconds: float,
        peak: float,
        share: float,
        device: str,
        precision: torch.dtype = torch.float32,
        seed: int = 1,
    ) -> None:
        torch.manual_seed(seed)
        self.corpus, self.seconds, self.device, self.precision = corpus, seconds, device, precision
        c = shape.model_copy(update={"vocab_size": corpus.tokenizer.vocab_size})
        self.model = from_shape(c, dropout=0.1).to(device)
        self.share, self.warmup = share, 4000
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=peak, betas=(0.9, 0.98), eps=1e-9)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._factor)
        self.loss = nn.CrossEntropyLoss(ignore_index=corpus.tokenizer.pad_id, label_smoothing=0.1)
        self.step, self.clock = 0, 0.0

    def train(self, marks: list[float], tell: Callable[[Point], None]) -> list[Point]:
        """Train for the time given, validating at the first step past each mark, and at the end."""
        points: list[Point] = []
        left = [*sorted(mark for mark in marks if mark < self.seconds), self.seconds]
        losses: list[float] = []
        for source, target in self._batches():
            begin = time.perf_counter()
            losses.append(self._update(source, target))
            self.clock += time.perf_counter() - begin
            if self.clock < left[0]:
                continue
            while left and left[0] <= self.clock:
                left.pop(0)
            bleu = self.evaluate(self.corpus.splits.validation).bleu
            points.append(Point(self.clock, self.step, bleu, sum(losses) / len(losses)))
            tell(points[-1])
            losses = []
            if not left:
                break
        return points

    def evaluate(self, pairs: Pairs) -> Scores:
        """BLEU and chrF of greedy translations, each source once, against all its references."""
        sources, references = grouped(pairs)
        return score(self.translate(sources), references)

    def translate(self, sentences: list[str], rows: int = 64) -> list[str]:
        """Greedy translations, with sublayer's default limits on their lengths."""
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

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        pairs = self.corpus.encoded()
        end, start = torch.tensor([pairs.marks.end]), torch.tensor([pairs.marks.start])
        rows = [
            (
                torch.cat([torch.from_numpy(pairs.sources[row]).long(), end]),
                torch.cat([start, torch.from_numpy(pairs.targets[row]).long(), end]),
            )
            for row in range(len(pairs))
        ]
        loader = DataLoader(rows, batch_size=ROWS, shuffle=True, collate_fn=self._collate)  # type: ignore[arg-type]
        while True:
            yield from loader

    def _collate(self, rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return self._padded([source for source, _ in rows]), self._padded([target for _, target in rows])

    def _padded(self, rows: list[Tensor]) -> Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=self.corpus.tokenizer.pad_id)

    def _update(self, source: Tensor, target: Tensor) -> float:
        source, target = source.to(self.device), target.to(self.device)
        with self._autocast():
            logits = self.model(source, target[:, :-1])
            loss = self.loss(logits.flatten(0, 1), target[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        value = loss.item()
        if not math.isfinite(value):
            raise SystemExit(f"the baseline's loss is {value} at step {self.step}: its learning rate is too high")
        return value

    def _factor(self, done: int) -> float:
        """The paper's schedule (section 5.3, equation 3), divided by its peak."""
        step = done + 1
        if step == MEASURED and self.clock:
            self.warmup = max(MEASURED, min(4000, int(self.share * self.seconds * step / self.clock)))
        # Until the speed is known the rate rises as for the shortest warm-up that is likely.
        warmup = self.warmup if step >= MEASURED else 10 * MEASURED
        return min(step / warmup, math.sqrt(warmup / step))

    def _autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, self.precision, enabled=self.precision != torch.float32)
