"""The loop: what a step does, when it ends, what it says when it cannot go on."""

from __future__ import annotations

import random
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from small_run import processes, same, sublayer, tree, write
from sublayer import config
from sublayer.data.batch import Batch
from sublayer.data.encoding import EncodedPairs
from sublayer.data.loader import Cursor, Loader
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.errors import CheckpointError, TrainingError
from sublayer.generation.greedy import greedy
from sublayer.generation.request import DecodeRequest
from sublayer.models import EncoderDecoder
from sublayer.tasks import translation
from sublayer.tasks.losses import CrossEntropy
from sublayer.tasks.objective import Objective
from sublayer.text import Affixes, PairAffixes
from sublayer.training import checkpoint, run, trainer
from sublayer.training.metrics import MetricsLog, read_metrics
from sublayer.training.trainer import Trainer, TrainerContext
from telling import Told

PAD, START, END, VOCABULARY = 0, 1, 2, 12


def encoded(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> EncodedPairs:
    def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
        starts = np.cumsum([0, *map(len, rows)])
        return Ragged(np.array([token for row in rows for token in row], dtype=np.int32), starts.astype(np.int64))

    return EncodedPairs(
        ragged([source for source, _ in pairs]),
        ragged([target for _, target in pairs]),
        np.arange(len(pairs)),
        Report(read=len(pairs), kept=len(pairs)),
        PairAffixes(Affixes((), (END,), PAD), START, (), END),
    )


def reversals(count: int, longest: int = 5, seed: int = 0) -> EncodedPairs:
    draw = random.Random(seed)
    rows = [draw.choices(range(4, 10), k=draw.randint(1, longest)) for _ in range(count)]
    return encoded([(row, row[::-1]) for row in rows])


@dataclass
class Given:
    """A loader that has only these batches, over and over."""

    chosen: list[Batch]

    def batches(self, cursor: Cursor) -> Iterator[tuple[Cursor, Batch]]:
        place = cursor.step
        while True:
            place += 1
            yield Cursor(0, place), self.chosen[(place - 1) % len(self.chosen)]


@dataclass(frozen=True)
class Validation:
    """What a validation finds."""

    loss: float
    bleu: float


@dataclass(frozen=True)
class Evaluated(Objective[Batch]):
    """The loss of translation, evaluated by what the test says."""

    loss_function: CrossEntropy
    validate: Callable[[], Validation]
    rows: ClassVar = "pairs"
    unit: ClassVar = "tokens"

    def choices(self, c: config.Model) -> int:
        return c.vocab_size

    def loss(self, model: EncoderDecoder, batch: Batch, total: int) -> Tensor:
        return translation.pair_loss(model, batch, total, self.loss_function)

    def evaluate(self, model: Any) -> dict[str, float]:
        found = self.validate()
        return {"loss": found.loss, "bleu": found.bleu}


def recipe(**over: Any) -> config.Training:
    return config.Training.parse(
        {
            "steps": 10,
            "optimizer": {"type": "adamw", "learning_rate": 3e-3},
            "schedule": {"type": "linear", "warmup": 5},
            "averaging": {"type": "none"},
            "batches": {"tokens": 200},
            "checkpoint_every": 100,
            "validate_every": 100,
            **over,
        },
        "test",
    )


def build(
    folder: Path,
    c: config.Training,
    loader: Any = None,
    *,
    model: EncoderDecoder | None = None,
    validate: Callable[[], Validation] = lambda: Validation(1.0, 0.0),
    improved: Callable[[], None] = lambda: None,
) -> Trainer:
    torch.manual_seed(0)
    return Trainer(
        EncoderDecoder(tree(VOCABULARY)) if model is None else model,
        Loader(reversals(60), c.batches, seed=1) if loader is None else loader,
        Evaluated(CrossEntropy(c.label_smoothing), validate),
        c,
        precision=torch.float32,
        context=TrainerContext(MetricsLog(folder / "metrics.jsonl"), Told(), folder / "checkpoints", improved),
    )


def train(made: Trainer) -> bool:
    try:
        return made.train()
    finally:
        made.context.log.close()


# --- what a step does --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path: Path, optimizer: str) -> None:
    """Batches of unequal numbers of tokens, differently padded; float64, so that only rounding may differ."""
    data = reversals(30)
    rows = np.random.default_rng(0).permutation(30)
    cuts = [rows[:3], rows[3:20], rows[20:]]
    parameters: list[dict[str, torch.Tensor]] = []
    losses: list[list[float]] = []
    for name, accumulate, batches in (("parts", 3, cuts), ("whole", 1, [rows])):
        torch.manual_seed(1)
        model = EncoderDecoder(tree(VOCABULARY)).double()
        c = recipe(steps=3, accumulate=accumulate, optimizer={"type": optimizer}, clip_norm=0.5, label_smoothing=0.1)
        made = build(tmp_path / name, c, Given([data.collate(part) for part in batches]), model=model)
        train(made)
        parameters.append(dict(model.named_parameters()))
        lines = read_metrics(tmp_path / name / "metrics.jsonl")
        losses.append([line["loss"] for line in lines if "loss" in line])
        assert [line["tokens"] for line in lines if "loss" in line] == [int(data.target_lengths.sum())] * 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for name, one in parameters[0].items():
        other = parameters[1][name]
        assert ((one - other).norm() / other.norm().clamp(min=1e-3)).item() < 1e-9, name


def test_it_learns_to_reverse(tmp_path: Path) -> None:
    stack = config.Stack(
        layers=1,
        block=config.Block(
            attention=config.Attention(heads=4), feed_forward=config.PositionWise(hidden=64), norm_placement="pre"
        ),
    )
    torch.manual_seed(2)
    model = EncoderDecoder(
        config.EncoderDecoder(dim=32, vocab_size=VOCABULARY, max_length=8, encoder=stack, decoder=stack)
    )
    c = recipe(
        steps=400,
        batches={"tokens": 400},
        optimizer={"type": "adamw", "learning_rate": 1e-2},
        schedule={"type": "linear", "warmup": 30},
        averaging={"type": "ema", "decay": 0.95},
        label_smoothing=0.0,
    )
    made = build(tmp_path, c, Loader(reversals(3000, longest=4), c.batches, seed=1), model=model)
    assert train(made)
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert losses[0] > 2.0
    assert np.mean(losses[-20:]) < 0.05
    unseen = reversals(100, longest=4, seed=9)
    batch = unseen.collate(np.arange(100))
    with made.average.applied(), torch.no_grad():
        model.eval()
        request = DecodeRequest([START] * 100, frozenset({END}), [7] * 100)
        found = greedy(model, batch.source, batch.source_lengths, request)
    wanted = [
        row[: length - 1] for row, length in zip(batch.target_out.tolist(), batch.target_lengths.tolist(), strict=True)
    ]
    assert sum(one.tokens == row for [one], row in zip(found, wanted, strict=True)) >= 98


@pytest.mark.parametrize("part", [0.01, 0.9, 0.985, 0.995, 0.9999999, 1.0, 1.005, 1.02, 100.0])
def test_the_gradient_is_clipped_and_its_norm_before_is_logged(tmp_path: Path, part: float) -> None:
    """To a part of its norm, or not at all; the oracle is torch's own, which multiplies every gradient each time."""
    found: dict[str, tuple[float, list[torch.Tensor]]] = {}
    optimizer = {"type": "adam", "learning_rate": 1e-3}
    for name, limit in (("free", None), ("clipped", 1.0)):
        limit = limit and part * found["free"][0]
        made = build(tmp_path / name, recipe(steps=1, clip_norm=limit, optimizer=optimizer))
        train(made)
        [line] = [line for line in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in line]
        # Adam's first average of the gradient g is (1 - beta1) g.
        found[name] = line["gradient_norm"], [s["exp_avg"] for s in made.optimizers.parts[0].state.values()]
    norm, free = found["free"]
    assert norm > 0.1
    assert found["clipped"][0] == norm, "that before clipping"
    wanted = [torch.nn.Parameter(torch.zeros_like(average)) for average in free]
    for each, average in zip(wanted, free, strict=True):
        each.grad = average.clone()
    torch.nn.utils.clip_grads_with_norm_(wanted, part * norm, torch.tensor(norm))
    for average, own, each in zip(found["clipped"][1], free, wanted, strict=True):
        torch.testing.assert_close(average, each.grad, rtol=1e-6, atol=0)
        assert part < 1.01 or torch.equal(average, own)


def test_the_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    made = build(tmp_path, recipe())
    train(made)
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    factors = [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert rates == pytest.approx([3e-3 * factor for factor in factors])


# --- when it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "values", "last", "best"),
    [
        ("loss", [3.0, 2.0, 2.5, 2.4, 1.0], 4, [1, 2]),
        ("loss", [3.0, 3.0, 3.0, 1.0], 3, [1]),
        ("loss", [5.0, 4.0, 4.5, 3.0, 3.5, 3.1, 0.0], 6, [1, 2, 4]),
        ("bleu", [1.0, 5.0, 4.0, 4.9, 9.0], 4, [1, 2]),
        ("bleu", [1.0, 2.0, 3.0, 4.0], 4, [1, 2, 3, 4]),
    ],
)
def test_early_stopping(tmp_path: Path, metric: str, values: list[float], last: int, best: list[int]) -> None:
    improved: list[int] = []
    asked = iter(values)

    def validate() -> Validation:
        value = next(asked)
        return Validation(value, 7.0) if metric == "loss" else Validation(7.0, value)

    made = build(
        tmp_path,
        recipe(
            steps=4 if last == 4 and len(values) == 4 else 50,
            validate_every=1,
            early_stopping={"metric": metric, "patience": 2},
        ),
        validate=validate,
        improved=lambda: improved.append(made.progress.step),
    )
    assert train(made)
    assert (made.progress.step, improved, made.progress.best_step) == (last, best, best[-1])


@pytest.mark.parametrize("metric", ["loss", "bleu"])
def test_the_best_model_is_the_one_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    """Through the command: the folder has the averaged weights of the best validation, not the last."""
    # The last is asked on what was held out.
    values = [5.0, 3.0, 4.0, 4.0, 6.0] if metric == "loss" else [1.0, 2.0, 1.5, 1.7, 0.5]
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(self: Any, model: Any) -> dict[str, float]:
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        value = values[len(seen) - 1]
        return {"loss": value, "bleu": 0.0} if metric == "loss" else {"loss": 9.0, "bleu": value}

    monkeypatch.setattr(translation.Translating, "evaluate", evaluate)
    file = write(
        tmp_path, training={"steps": 90, "validate_every": 3, "early_stopping": {"metric": metric, "patience": 2}}
    )
    assert sublayer("train", file, "--out", tmp_path / "run").code == 0
    assert len(seen) == 5
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert same(kept, seen[1]) == []
    assert same(kept, seen[3]) != []
    assert same(kept, seen[4]) == []


@pytest.mark.parametrize("averaging", [{"type": "ema", "decay": 0.9}, {"type": "last", "count": 2, "every": 2}])
def test_the_averaged_weights_are_judged_and_training_goes_on_with_its_own(
    tmp_path: Path, averaging: dict[str, Any]
) -> None:
    evaluated: list[dict[str, torch.Tensor]] = []
    kept: list[dict[str, torch.Tensor]] = []

    def weights() -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in made.model.named_parameters()}

    def validate() -> Validation:
        evaluated.append(weights())
        return Validation(1.0, 0.0)

    made = build(
        tmp_path / "evaluated",
        recipe(averaging=averaging, validate_every=10, early_stopping={"metric": "loss"}),
        validate=validate,
        improved=lambda: kept.append(weights()),
    )
    train(made)
    average = made.average.weights()
    assert same(evaluated[0], average) == same(kept[0], average) == []
    assert len(same(weights(), average)) == len(average)
    plain = build(tmp_path / "plain", recipe())
    train(plain)
    assert same(weights(), dict(plain.model.named_parameters())) == []


class Clock:
    """Seconds pass only in steps, as `pace` has it for each, and in validations."""

    def __init__(self, pace: Callable[[int], float]) -> None:
        self.now, self.pace = 0.0, pace

    def perf_counter(self) -> float:
        return self.now


def timed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    pace: Callable[[int], float],
    validation: float = 0.0,
    **over: Any,
) -> tuple[Trainer, Clock]:
    """A trainer of a run of one minute whose steps take what `pace` says."""
    clock = Clock(pace)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=clock.perf_counter))

    def validate() -> Validation:
        clock.now += validation
        return Validation(1.0, 0.0)

    settings = {"steps": None, "minutes": 1.0, "schedule": {"type": "linear", "warmup": 10}, **over}
    made = build(folder, recipe(**settings), validate=validate)
    real = made._step

    def step(group: Any, factor: float) -> Any:
        clock.now += clock.pace(made.progress.step + 1)
        return real(group, factor)

    made._step = step  # pyright: ignore
    return made, clock


def test_a_clock_that_stands_still_ends_a_run_in_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the beginning, or after a while; a coarse one that moves now and then is none that stands still."""
    for last in (0, 20):
        made, _ = timed(tmp_path / str(last), monkeypatch, lambda step, last=last: 0.1 * (step <= last))
        with pytest.raises(
            TrainingError, match=r"training\.minutes = 1, and the clock .* in 1,000 steps.*training\.steps"
        ):
            made.train()
        made.context.log.close()
    made, _ = timed(tmp_path / "coarse", monkeypatch, lambda step: 4.0 * (step % 20 == 0))
    assert made.train()
    made.context.log.close()


def logged(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


PACES: dict[str, Callable[[int], float]] = {
    "even": lambda step: 0.5,
    "slow": lambda step: 3.0,
    "uneven": lambda step: 0.2 + 0.6 * (step % 3 == 0),
    "slower after the warm-up": lambda step: 0.5 if step <= 10 else 2.0,
    "ten times slower half way": lambda step: 0.5 if step <= 60 else 5.0,
    "faster": lambda step: 2.0 if step <= 10 else 0.25,
}


@pytest.mark.parametrize("pace", PACES.values(), ids=PACES)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_minutes_end_in_time_and_annealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pace: Callable[[int], float], schedule: str
) -> None:
    """Whatever the machine does: to the nearest step, with the learning rate where the clock is."""
    over = {"schedule": {"type": schedule, "warmup": 10}}
    made, clock = timed(tmp_path, monkeypatch, pace, **over)
    assert train(made)
    steps = logged(tmp_path)
    longest = max(pace(line["step"]) for line in steps[-3:])
    assert abs(clock.now - 60) <= longest
    assert made.progress.seconds == pytest.approx(clock.now)
    rates = [line["learning_rate"] / 3e-3 for line in steps]
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(1.0, abs=0.1)
    assert rates[-1] <= longest / 54
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    # The warm-up took its ten steps, or a tenth of the time where that is less.
    assert peak + 1 <= 10
    assert made.progress.warm is not None
    assert made.progress.warm <= max(6.0, pace(1)) + 1e-6
    slowest = max(pace(line["step"]) for line in steps)
    if schedule == "linear":
        for before, line, rate in list(zip(steps, steps[1:], rates[1:], strict=False))[peak + 2 : -1]:
            # The step is placed where the clock is expected after it: not before its beginning, nor a step too late.
            low = 1 - (line["seconds"] + slowest - made.progress.warm) / (60 - made.progress.warm)
            high = 1 - (before["seconds"] - made.progress.warm) / (60 - made.progress.warm)
            assert low - 1e-6 <= rate <= high + 1e-6


def test_even_steps_by_the_clock_are_those_of_a_run_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build(tmp_path / "steps", recipe(steps=120, schedule={"type": "linear", "warmup": 10}))
    assert train(plain)
    made, _ = timed(tmp_path / "clock", monkeypatch, lambda step: 0.5)
    assert train(made)
    rates = [[line["learning_rate"] for line in logged(tmp_path / name)] for name in ("clock", "steps")]
    assert rates[0] == pytest.approx(rates[1], abs=1e-9)
    assert made.optimizers.learning_rate == 0.0
    # What the first step takes is not known before it.
    places = [line["place"] for line in logged(tmp_path / "clock")]
    assert places == pytest.approx([0.0, *(n / 120 for n in range(2, 121))])
    told = made.context.reporter
    assert told.left[0] == pytest.approx(59.5)  # pyright: ignore
    assert told.left[-1] == 0.0  # pyright: ignore


def test_a_machine_that_slept_within_a_step_does_not_end_the_run_at_a_high_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = timed(tmp_path, monkeypatch, lambda step: 1000.0 if step == 40 else 0.5)
    assert train(made)
    rates = [line["learning_rate"] / 3e-3 for line in logged(tmp_path)]
    assert len(rates) > 60
    assert rates[40] > 0.3
    assert rates[-1] == 0.0
    assert max(a - b for a, b in pairwise(rates[10:])) < 0.5


@pytest.mark.parametrize("slow", [6.3, 30.0, 45.0, 100.0])
def test_a_few_long_steps_are_a_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: float) -> None:
    made, clock = timed(tmp_path, monkeypatch, lambda step: slow)
    assert train(made)
    assert clock.now <= max(60 + slow / 2, slow)


def test_validations_take_a_tenth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = timed(tmp_path, monkeypatch, lambda step: 0.5, validation=2.0, validate_every=5)
    assert train(made)
    checks = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "valid/loss" in line]
    assert checks[-1]["step"] == made.progress.step
    spent = 2.0
    for line in checks[1:-1]:
        spent += 2.0
        assert spent <= 0.1 * line["seconds"] + 1e-6
    assert [line["step"] for line in checks] == [5, 80, 120]
    free, _ = timed(tmp_path / "free", monkeypatch, lambda step: 0.5, validate_every=20)
    assert train(free)
    checks = [line["step"] for line in read_metrics(tmp_path / "free" / "metrics.jsonl") if "valid/loss" in line]
    assert checks == [20, 40, 60, 80, 100, 120]


def test_what_comes_after_a_checkpoint_is_done_again_with_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between two checkpoints, and gone on with on a machine ten times as fast."""
    whole, _ = timed(tmp_path, monkeypatch, lambda step: 0.5 + 0.1 * (step % 4), checkpoint_every=30)
    assert train(whole)
    lines = logged(tmp_path)
    saved = next(path for path in checkpoint.listed(tmp_path / "checkpoints") if path.name == "step-000060")
    again, _ = timed(tmp_path / "again", monkeypatch, lambda step: 0.05)
    again.restore(checkpoint.read(saved))
    replayed = {line["step"]: line["seconds"] for line in lines if 60 < line["step"] <= 75}
    again.context = replace(again.context, replayed=replayed)
    assert train(again)
    after = logged(tmp_path / "again")
    assert after[0]["step"] == 61
    for line, before in list(zip(after, lines[60:], strict=False))[:15]:
        assert line == before
    # Then the clock goes on from there.
    assert after[15]["seconds"] == pytest.approx(replayed[75] + 0.05)


# --- what it says when it cannot go on ---------------------------------------------------------------------------


def refusal(made: Trainer) -> str:
    with pytest.raises(TrainingError) as caught:
        train(made)
    return str(caught.value)


def rows_of(text: str) -> list[int]:
    found = re.search(r"training pairs ([\d, ]+), …", text)
    assert found
    return [int(row) for row in found[1].split(", ")]


def test_a_poisoned_parameter_is_named(tmp_path: Path) -> None:
    made = build(tmp_path, recipe())
    with torch.no_grad():
        made.model.decoder.layers[0].feed_forward.down.weight[3, 2] = float("nan")
    text = refusal(made)
    rows = made.loader.plan(0)[0][:5].tolist()
    assert rows_of(text) == rows
    assert "the loss is nan at step 1 (epoch 0, batch 0: " in text
    assert "first not finite: the parameter decoder.layers.0.feed_forward.down.weight." in text
    assert "lower learning rate" in text


@pytest.mark.parametrize("compiled", [False, True])
def test_the_first_output_that_overflows_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    def without_hooks(function: Any, dynamic: bool) -> Any:
        # What is compiled does not call the hooks of modules.
        return lambda source, lengths, target: torch.full((*target.shape, 16), float("nan"), requires_grad=True)

    monkeypatch.setattr(torch, "compile", without_hooks)
    made = build(tmp_path, recipe(compile=compiled))
    with torch.no_grad():
        made.model.encoder.layers[0].feed_forward.up.weight.fill_(3e38)
    assert "first not finite: the output of encoder.layers.0.feed_forward.up." in refusal(made)


def test_a_learning_rate_that_is_far_too_high(tmp_path: Path) -> None:
    made = build(tmp_path, recipe(steps=50, optimizer={"type": "adamw", "learning_rate": 1e38}))
    text = refusal(made)
    step = made.progress.step + 1
    assert step > 1
    assert f" at step {step} (epoch {made.progress.epoch}, batch {made.progress.batch}: training pairs " in text
    assert re.search(r"first not finite: the (parameter|output of|gradient of) \S+\. Start another run", text)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, step))
    assert checkpoint.listed(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_gradient_that_is_not_finite_is_named_and_changes_nothing(tmp_path: Path, value: str) -> None:
    made = build(tmp_path, recipe())
    made.model.encoder.layers[0].self_attention.output.weight.register_hook(lambda gradient: gradient * float(value))
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    text = refusal(made)
    assert "the gradient's norm is " in text
    assert "first not finite: the gradient of encoder.layers.0.self_attention.output.weight." in text
    assert same(dict(made.model.named_parameters()), before) == []


def test_of_several_gradients_the_one_nearest_the_output_is_named(tmp_path: Path) -> None:
    made = build(tmp_path, recipe())
    handle = made.model.decoder.layers[0].cross_attention_sublayer
    handle.register_full_backward_hook(lambda module, into, out: tuple(g if g is None else g / 0 for g in into))
    text = refusal(made)
    # The cross-attention's own gradients are fine; those of whatever came before it are not.
    assert "first not finite: the gradient of decoder.layers.0.self_attention_sublayer.before." in text


def test_the_batch_that_is_named_is_the_bad_one_of_a_group(tmp_path: Path) -> None:
    data = reversals(9)
    bad = data.collate(np.array([7, 8]))
    bad = replace(bad, source=bad.source.fill_(VOCABULARY - 1))
    fine = encoded([([4, 5], [5, 4])] * 3).collate(np.arange(3))
    made = build(
        tmp_path, recipe(accumulate=2), Given([fine, bad]), model=EncoderDecoder(tree(VOCABULARY, tied="none"))
    )
    with torch.no_grad():
        made.model.encoder.embedding.tokens.weight[VOCABULARY - 1] = float("inf")
    assert rows_of(refusal(made)) == [7, 8]


# --- compile, checkpoints, signals -------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["at once", "when called"])
def test_compile_that_does_not_work_is_gone_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(torch, "compile", fail if when == "at once" else lambda function, dynamic: fail)
    made, plain = build(tmp_path / "compiled", recipe(compile=True)), build(tmp_path / "plain", recipe())
    train(made)
    train(plain)
    said = made.context.reporter.said  # pyright: ignore
    message = "training.compile does not work here (no compiler); going on without it"
    assert [text for text in said if "compile" in text] == [message]
    assert same(dict(made.model.named_parameters()), dict(plain.model.named_parameters())) == []


def test_compile_does_not_hide_an_error_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    made = build(tmp_path, recipe(compile=True))
    made.model.decoder.forward = lambda *_: 1 / 0
    made.loader.plan(0)
    with pytest.raises(ZeroDivisionError):
        train(made)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    one = build(tmp_path / "one", recipe(steps=1))
    train(one)
    saved = checkpoint.read(checkpoint.listed(tmp_path / "one" / "checkpoints")[-1])
    for other in (tree(VOCABULARY + 1), tree(VOCABULARY, tied="none"), tree(VOCABULARY, output_bias=True)):
        made = build(tmp_path / "two", recipe(), model=EncoderDecoder(other))
        before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
        with pytest.raises(CheckpointError, match="of step 1 is of another model: "):
            made.restore(saved)
        assert same(dict(made.model.named_parameters()), before) == []
        made.context.log.close()


def test_checkpoints_beyond_those_to_keep_are_removed_oldest_first(tmp_path: Path) -> None:
    made = build(tmp_path, recipe(steps=1_000_001, checkpoint_every=2, keep_checkpoints=2))
    made.progress = replace(made.progress, step=999_994)
    train(made)
    names = [path.name for path in checkpoint.listed(tmp_path / "checkpoints")]
    assert names == ["step-1000000", "step-1000001"]


def test_interruptible_outside_the_main_thread_does_nothing() -> None:
    import threading

    told: list[bool] = []

    def inside() -> None:
        with trainer.interruptible() as interrupted:
            told.append(interrupted())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert told == [False]


def test_a_second_interrupt_does_not_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with trainer.interruptible() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_clock_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: 7.0)
    outcome = sublayer("train", write(tmp_path, training={"steps": 4}), "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_saves_and_the_command_it_prints_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    file = write(tmp_path / "a folder")
    start = ("train", file, "--set", "name='other one'".replace(" ", "-"), "--set", "training.clip_norm=0.5")
    stopped = processes().run(*start, "--out", tmp_path / "stopped", signal_at_step={"step": 6, "signal": int(number)})
    assert stopped.code == 130
    assert stopped.out == ""
    assert "Traceback" not in stopped.err
    assert [path.name for path in checkpoint.listed(tmp_path / "stopped" / "checkpoints")] == [
        "step-000004",
        "step-000006",
    ]
    assert not (tmp_path / "stopped" / "model").exists()
    [again] = re.findall(r"interrupted; the state is saved\. Go on with: sublayer (.*)", stopped.err)
    assert processes().run(*shlex.split(again)).code == 0
    assert processes().run(*start, "--out", tmp_path / "whole").code == 0
    whole, resumed = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped"))
    assert same(whole, resumed) == []


def test_ctrl_c_before_the_training_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "prepare", prepare)
    outcome = sublayer("train", write(tmp_path), "--out", tmp_path / "run")
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()
