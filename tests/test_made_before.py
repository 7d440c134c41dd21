"""What was written once must still load: models of every shape and head, adapters, runs that were killed.

`fixtures/` holds them as the code of another day wrote them, with what it then said; `fixtures/make.py` says how.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from small_run import sublayer
from sublayer.generation.generator import Generator
from sublayer.generation.translator import Translator
from sublayer.hub.folder import load, read
from sublayer.laws import relative_error
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.training.metrics import read_metrics

FIXTURES = Path(__file__).parent / "fixtures"
MODELS = sorted((FIXTURES / "models").iterdir())
PLACE = "@FOLDER@"
ROUNDING = 1e-5
"""Relative, of float32: kernels of other processors add in another order."""


@pytest.mark.parametrize("folder", [*MODELS, FIXTURES / "adapters"], ids=lambda folder: folder.name)
def test_a_model_says_what_it_said(folder: Path) -> None:
    answers = load_file(folder / "answers.safetensors")
    said = answers.pop("says")
    with torch.no_grad():
        assert relative_error(read(folder).model(**answers), said) < ROUNDING


USES = {
    "encoder-decoder": Translator,
    "recurrent-encoder-decoder": Translator,
    "decoder-only": Generator,
    "recurrent-decoder-only": Generator,
    "classification": Classifier,
    "tagging": Tagger,
    "sentence-embedding": Embedder,
    "masked-language": Filler,
}


@pytest.mark.parametrize("name", USES)
def test_a_model_is_ready_to_use(name: str) -> None:
    assert type(load(FIXTURES / "models" / name)) is USES[name]


def test_nothing_is_left_out() -> None:
    """A shape or head that has no fixture was never promised to load."""
    from sublayer import config

    kinds = {read(folder).model.config.kind for folder in MODELS}
    heads = {getattr(getattr(read(folder).model.config, "head", None), "type", None) for folder in MODELS}
    assert kinds == set(config.KINDS)
    assert heads == {None, "none", "masked-language", "classification", "tagging", "sentence-embedding"}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_killed_run_goes_on_to_where_it_would_have_gone(tmp_path: Path, name: str) -> None:
    shutil.copytree(FIXTURES / "runs" / name, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "run").rglob("*"):
        if path.suffix in (".json", ".toml"):
            path.write_text(path.read_text().replace(PLACE, str(tmp_path)))
    outcome = sublayer("train", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--resume")
    assert outcome.code == 0, outcome.err
    whole, found = tmp_path / "whole", tmp_path / "run"
    answers = load_file(whole / "answers.safetensors")
    said = answers.pop("says")
    # Not its weights: the biases of keys change nothing, and Adam makes whole steps of their rounding.
    with torch.no_grad():
        assert relative_error(read(found).model(**answers), said) < 10 * ROUNDING
    before, after = read_metrics(whole / "metrics.jsonl"), read_metrics(found / "metrics.jsonl")
    assert [line.keys() for line in before] == [line.keys() for line in after]
    for one, other in zip(before, after):
        for key in one.keys() - {"seconds"}:
            assert other[key] == pytest.approx(one[key], rel=10 * ROUNDING, abs=1e-9), key
