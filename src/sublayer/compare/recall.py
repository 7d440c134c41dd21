"""Part 2: what is remembered over a distance, and the gradient that comes back from it.

recall    pairs of a key and a value, then noise, then keys: the value that stood behind each is wanted (associative
          recall; Graves et al. 2014, section 4.3, in the form of Arora et al. 2023, "Zoology"). An attention finds a
          key, but what it wants stands one further: that takes two layers.
copy      letters, then noise, then a mark: the letters are wanted in their order (Hochreiter and Schmidhuber 1997,
          Arjovsky et al. 2016).

The distance is the number of tokens of noise. Every contender is trained on the same texts, with distances drawn evenly
on a logarithmic scale, and tested at each distance by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.compare.contenders import HEADS, matched, path, recurrent_lm, transformer_lm
from sublayer.compare.ledger import Ledger
from sublayer.compare.plan import Recall
from sublayer.config.cost import total_parameters
from sublayer.data.batch import IGNORE
from sublayer.models import build_model
from sublayer.models.evaluating import evaluating
from sublayer.nn.tap import hooked
from sublayer.tasks.losses import CrossEntropy
from sublayer.training.progress import Reporter

Task = Literal["recall", "copy"]
TASKS: tuple[Task, ...] = ("recall", "copy")

KEYS = VALUES = 4
"""Every key is said once, each with any of the values."""
QUESTIONS = 8
"""Keys that are asked for, some of them more than once."""
LETTERS, COPIED = 8, 4
"""Different letters, and how many are to be copied."""
NOISE = 8
"""Different tokens of noise."""

_VALUE, _LETTER = KEYS, KEYS + VALUES
_NOISE = _LETTER + LETTERS
MARK = _NOISE + NOISE
VOCABULARY = MARK + 1

CHANCE: Mapping[Task, float] = {"recall": 1 / VALUES, "copy": 1 / LETTERS}
"""What guessing gets right."""


@dataclass(frozen=True)
class Texts:
    """Shape: tokens, target [B, S] int64; target is `IGNORE` where nothing is asked."""

    tokens: Tensor
    target: Tensor


def draw(task: Task, rows: int, distance: int, random: torch.Generator) -> Texts:
    """Texts with so many tokens of noise between what is said and what is asked."""

    def some(count: int, begin: int, kinds: int) -> Tensor:
        return torch.randint(begin, begin + kinds, (rows, count), generator=random)

    noise = some(distance, _NOISE, NOISE)
    if task == "copy":
        letters = some(COPIED, _LETTER, LETTERS)
        tokens = torch.cat((letters, noise, torch.full((rows, 1), MARK), letters[:, :-1]), dim=1)
        target = torch.full_like(tokens, IGNORE)
        target[:, -COPIED:] = letters
        return Texts(tokens, target)
    keys = torch.rand(rows, KEYS, generator=random).argsort(dim=1)
    values = some(KEYS, _VALUE, VALUES)
    chosen = some(QUESTIONS, 0, KEYS)
    asked, answers = keys.gather(1, chosen), values.gather(1, chosen)
    said = torch.stack((keys, values), dim=2).flatten(1)
    # The last answer is wanted, and not said.
    questions = torch.stack((asked, answers), dim=2).flatten(1)[:, :-1]
    tokens = torch.cat((said, noise, questions), dim=1)
    target = torch.full_like(tokens, IGNORE)
    target[:, -questions.shape[1] :: 2] = answers
    return Texts(tokens, target)


def contenders(c: Recall) -> Mapping[str, config.DecoderOnly | config.RecurrentDecoderOnly]:
    """By name, all with nearly the same number of parameters."""
    longest = max(c.distances) + 2 * (KEYS + QUESTIONS + COPIED)
    reference = transformer_lm(c.dim, c.layers, VOCABULARY, longest)
    # One layer is as wide as makes up for the others: about so, for the heads to fit, and the rest in its feed-forward.
    wide = round(c.dim * math.sqrt(c.layers) / (2 * HEADS)) * 2 * HEADS
    one = matched(reference, lambda hidden: transformer_lm(wide, 1, VOCABULARY, longest, hidden=hidden))
    every = {"transformer": reference, "transformer-1": one}
    every |= {cell: recurrent_lm(cell, reference) for cell in config.CELLS}
    return {name: every[name] for name in c.contenders}


def measure(c: Recall, ledger: Ledger, device: torch.device, told: Callable[[], Reporter]) -> None:
    """Train and test every contender at both tasks, with every learning rate; and measure how far gradients reach.

    An entry of a task: parameters, tokens seen, and for each learning rate the accuracy at each distance and the loss
    on the way. "gradient/NAME": the norm of the gradient that reaches a token so many steps back, fresh and trained.
    """
    trees = contenders(c)
    for task in TASKS:
        for name, tree in trees.items():
            for rate in c.rates.of(name):
                entry = f"{task}/{name}/{rate:g}"
                if entry in ledger:
                    continue
                shown = told()
                shown.say(f"recall: {task}, {name}, learning rate {rate:g}")
                with shown:
                    ledger[entry] = _trained(c, task, tree, rate, device, shown)


def _trained(
    c: Recall,
    task: Task,
    tree: config.DecoderOnly | config.RecurrentDecoderOnly,
    rate: float,
    device: torch.device,
    shown: Reporter,
) -> dict[str, Any]:
    torch.manual_seed(1)
    model = build_model(tree).to(device).train()
    fresh = reach(model, c, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, c.steps // 10)
    random = torch.Generator().manual_seed(2)
    losses: list[float] = []
    tokens = 0
    for step in range(1, c.steps + 1):
        texts = draw(task, c.rows, _distance(c, step, random), random)
        factor = min(step / warmup, (c.steps - step + 1) / max(1, c.steps - warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        loss = _loss(model, texts, device)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += texts.tokens.numel()
        losses.append(loss.item())
        shown.step(step, c.steps, losses[-1], f"{tokens:,} tokens", None)
    accuracy = {str(distance): _accuracy(model.eval(), c, task, distance, device) for distance in c.distances}
    every = max(1, c.steps // 50)
    return {
        "parameters": total_parameters(tree),
        "width": tree.dim,
        "tokens": tokens,
        "accuracy": accuracy,
        "loss": [sum(losses[at : at + every]) / len(losses[at : at + every]) for at in range(0, c.steps, every)],
        "path": {str(distance): path(tree, distance) for distance in c.distances},
        "reach_fresh": fresh,
        "reach_trained": reach(model, c, device),
    }


def _distance(c: Recall, step: int, random: torch.Generator) -> int:
    """Drawn evenly on a logarithmic scale from the smallest up to a largest, which grows for the first half of the
    training: what is to be done is learned where it is near, and then farther and farther."""
    low, high = math.log(min(c.distances)), math.log(max(c.distances))
    high = low + (high - low) * min(1.0, 2 * step / c.steps)
    return round(math.exp(low + (high - low) * float(torch.rand(1, generator=random))))


def _loss(model: nn.Module, texts: Texts, device: torch.device) -> Tensor:
    told: Any = model
    target = texts.target.to(device)
    asked = int((texts.target != IGNORE).sum())
    return CrossEntropy(label_smoothing=0.0)(told.output, told.hidden(texts.tokens.to(device)), target, asked)


@torch.no_grad()
def _accuracy(model: nn.Module, c: Recall, task: Task, distance: int, device: torch.device) -> float:
    """Part of the answers that are right, on texts that are the same for all."""
    told: Any = model
    random = torch.Generator().manual_seed(1000 + distance)
    right = asked = 0
    for begin in range(0, c.tested, 32):
        texts = draw(task, min(32, c.tested - begin), distance, random)
        wanted = texts.target.to(device)
        real = wanted != IGNORE
        found = told.project(told.hidden(texts.tokens.to(device))[real]).argmax(-1)
        right += int((found == wanted[real]).sum())
        asked += int(real.sum())
    return right / asked


def reach(model: nn.Module, c: Recall, device: torch.device, rows: int = 8) -> dict[str, float]:
    """The norm of the gradient that reaches a token n steps back, for n = 0, 1, 2, 4, ….

    Of the loss of predicting a token at the last place of a random text, with respect to the embedded token n places
    before; over some texts the geometric mean, divided by that of n = 0.
    """
    told: Any = model
    size = max(c.distances) + 1
    random = torch.Generator().manual_seed(3)
    tokens = torch.randint(VOCABULARY, (rows, size), generator=random).to(device)
    wanted = torch.randint(VOCABULARY, (rows,), generator=random).to(device)
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], value: Tensor) -> None:
        value.retain_grad()  # pyright: ignore[reportUnknownMemberType]
        seen.append(value)

    with evaluating(model), hooked({"embedding": told.decoder.embedding}, lambda _: keep):
        # Recurrent kernels of a GPU go back in training only; there is no dropout here that it would switch on.
        model.train(device.type == "cuda")
        logits: Tensor = told.project(told.hidden(tokens)[:, -1])
        nn.functional.cross_entropy(logits.double(), wanted, reduction="sum").backward()  # pyright: ignore[reportUnknownMemberType]
    model.zero_grad(set_to_none=True)
    gradient = seen[0].grad
    assert gradient is not None
    lengths = cast("Tensor", torch.linalg.vector_norm(gradient.double(), dim=-1))
    norms = lengths.clamp(min=1e-300).log().mean(dim=0).flip(0)
    steps = [0, *(2**k for k in range(int(math.log2(size - 1)) + 1))]
    return {str(n): math.exp(cast("float", (norms[n] - norms[0]).item())) for n in steps}
