"""The baseline of `time_to_quality.py` is allowed to learn: its schedule, its search, its decoding, its training."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import corpus
from baseline import SETTINGS, Baseline, Setting
from halving import Rung, halve
from torch_transformer import TorchTransformer

from sublayer import config

# torch's own, about its nested tensors.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> corpus.Corpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBLAYER_CACHE", str(tmp_path_factory.mktemp("cache")))
        return corpus.example()


def baseline(data: corpus.Corpus, setting: Setting, seconds: float = 1.0) -> Baseline:
    return Baseline(data, config.preset("tiny"), setting, seconds=seconds)


@pytest.mark.parametrize("setting", [SETTINGS[6], SETTINGS[9]], ids=str)
def test_it_learns(data: corpus.Corpus, setting: Setting) -> None:
    run, steps = baseline(data, replace(setting, tokens=600)), 40
    validation = data.splits.validation
    before = run.loss_of(validation)
    for number, (source, target) in enumerate(itertools.islice(run._batches(), steps)):
        # A schedule of so many steps, whatever else the machine does.
        run.clock = run.seconds * number / steps
        run._update(source, target)
    after = run.loss_of(validation)
    assert before > 0.9 * math.log(run.model.output.out_features)
    assert after < 0.7 * before


def test_a_run_ends_with_its_time_and_validates_at_its_marks(data: corpus.Corpus) -> None:
    run = baseline(data, SETTINGS[0], seconds=0.6)
    told = []
    points = run.train([0.2, 0.4, 5.0], told.append)
    assert points == told
    assert 0.6 <= points[-1].seconds == run.clock
    assert points[-1].step == run.step
    assert [point.step for point in points] == sorted({point.step for point in points})
    assert points[0].seconds >= 0.2


def test_a_run_that_diverges_loses_and_ends(data: corpus.Corpus) -> None:
    run = baseline(data, Setting("AdamW", 1e30, 2000, warmup=1e-9), seconds=60.0)
    [last] = run.train([], lambda _: None)
    assert (last.bleu, last.loss) == (0.0, math.inf)
    assert run.clock < run.seconds


def test_adamw_decays_to_nothing_and_the_papers_with_the_root_of_time(data: corpus.Corpus) -> None:
    linear, paper = baseline(data, SETTINGS[1]), baseline(data, SETTINGS[8])
    for run in (linear, paper):
        warmup, peak = run.setting.warmup, run.setting.peak
        assert 0 < run.rate(0.0) < run.rate(warmup / 2) == pytest.approx(peak / 2)
        assert run.rate(warmup) == pytest.approx(peak)
    assert linear.rate(0.55) == pytest.approx(linear.setting.peak / 2)
    assert linear.rate(1.0) == linear.rate(1.1) == 0.0
    assert paper.rate(0.4) == pytest.approx(paper.setting.peak / 2)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_batch_is_decoded_as_its_sentences_alone(norm_first: bool) -> None:
    """Some end early and leave the batch; what goes on must not notice."""
    torch.manual_seed(3)
    model = TorchTransformer(
        vocab_size=23, dim=16, heads=2, layers=2, hidden=32, max_length=32, norm_first=norm_first
    ).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.6)
    lengths = torch.tensor([7, 2, 5, 3, 6, 4, 7, 1])
    source = torch.randint(3, 23, (8, 7)).masked_fill(torch.arange(7) >= lengths.unsqueeze(1), 0)
    # As end marker a token that some of them say early, and others late or never.
    endless = model.greedy(source, start=1, end=-1, steps=12)
    places = {token: {row.index(token) if token in row else 12 for row in endless} for token in range(23)}
    end = max(places, key=lambda token: len(places[token]))
    together = model.greedy(source, start=1, end=end, steps=12)
    alone = [
        model.greedy(row[:length].unsqueeze(0), start=1, end=end, steps=12)[0]
        for row, length in zip(source, lengths.tolist(), strict=True)
    ]
    assert together == alone
    assert len({len(ids) for ids in together}) > 1, "none ends before another, so nothing was tried"


@torch.no_grad()
def test_greedy_takes_the_most_probable_token_after_each_prefix() -> None:
    torch.manual_seed(3)
    model = TorchTransformer(vocab_size=23, dim=16, heads=2, layers=1, hidden=32, max_length=32, tied=True).eval()
    source = torch.randint(3, 23, (2, 5))
    for row, ids in enumerate(model.greedy(source, start=1, end=2, steps=9)):
        wanted = model(source[row : row + 1], torch.tensor([[1, *ids]])).argmax(-1)[0].tolist()
        assert wanted[: len(ids)] == ids
        assert len(ids) == 9 or wanted[len(ids)] == 2


@torch.no_grad()
@pytest.mark.parametrize("norm_first", [False, True])
def test_pads_of_the_target_change_nothing_before_them(norm_first: bool) -> None:
    torch.manual_seed(3)
    model = TorchTransformer(
        vocab_size=23, dim=16, heads=2, layers=2, hidden=32, max_length=32, norm_first=norm_first
    ).eval()
    source, target = torch.randint(3, 23, (2, 5)), torch.randint(3, 23, (2, 6))
    padded = torch.nn.functional.pad(target, (0, 3))
    torch.testing.assert_close(model(source, padded)[:, :6], model(source, target))


def test_halving_gives_the_time_to_the_best() -> None:
    asked = []

    def trial(setting: int, share: float) -> float:
        asked.append((setting, share))
        return setting * share

    rounds = halve([3, 9, 5, 7], [Rung(0.1, 2), Rung(1.0, 1)], trial, [lambda found: found, lambda found: -found])
    assert asked == [(3, 0.1), (9, 0.1), (5, 0.1), (7, 0.1), (9, 1.0), (7, 1.0)]
    # The second rung ranks by a measure of its own.
    assert [[setting for setting, _ in found] for found in rounds] == [[9, 7, 5, 3], [7, 9]]


def test_every_choice_of_a_careful_user_is_tried() -> None:
    assert {setting.optimizer for setting in SETTINGS} == {"AdamW", "Adam"}
    for name, least in (("tokens", 3), ("peak", 3), ("tied", 2), ("pre_norm", 2)):
        assert len({getattr(setting, name) for setting in SETTINGS}) >= least
    assert len(set(SETTINGS)) == len(SETTINGS)
