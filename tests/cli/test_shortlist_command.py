"""`sublayer shortlist`, and `translate --shortlist`, on a model trained for the purpose."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from small_run import sublayer, trained
from sublayer.errors import InputError
from sublayer.generation.shortlist import FILE, read_shortlist
from sublayer.hub.loading import load_translator

SENTENCES = ("ba co di", "fu ge")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained(), tmp_path / "run"))


def test_what_it_makes_is_used_and_its_price_is_said(run: Path) -> None:
    outcome = sublayer("shortlist", run, "--candidates", 2, "--frequent", 3)
    assert outcome.code == 0, outcome.err
    assert (run / "model" / FILE).is_file()
    scores = re.findall(r"^(all tokens|shortlist) .* BLEU ([0-9.]+)", outcome.out, flags=re.MULTILINE)
    assert [name for name, _ in scores] == ["all tokens", "shortlist"]
    assert re.search(r"chooses among \d+ of \d+ tokens", outcome.out)
    plain = sublayer("evaluate", run)
    assert f"BLEU       {scores[0][1]}" in plain.out
    model = load_translator(run)
    found = read_shortlist(run / "model", model.tokenizer.fingerprint, model.vocab_size)
    listed = model.with_shortlist(found)
    translations = listed.translate(SENTENCES)
    for ids, one in zip(listed.encode(SENTENCES), translations, strict=True):
        tokens, allowed = found.of([ids], [listed.affixes.end])
        assert set(one.tokens) <= set(tokens[allowed[0]].tolist())
    outcome = sublayer("translate", run, "--shortlist", *SENTENCES)
    assert outcome.out.splitlines() == [one.text for one in translations]


def test_a_list_of_everything_translates_as_without(run: Path) -> None:
    assert sublayer("shortlist", run, "--frequent", 10_000).code == 0
    # What never occurs in the training text is no candidate, and a trained model does not say it.
    plain, listed = (sublayer("translate", run, *some, *SENTENCES).out for some in ((), ("--shortlist",)))
    assert plain == listed


def test_without_one_and_with_what_it_cannot_go_with_it_is_refused(run: Path) -> None:
    outcome = sublayer("translate", run, "--shortlist", "ba")
    assert outcome.code == 2
    assert "has no shortlist" in outcome.err
    assert "sublayer shortlist" in outcome.err
    assert sublayer("shortlist", run).code == 0
    outcome = sublayer("translate", run, "--shortlist", "--no-repeat-ngram", 2, "ba")
    assert outcome.code == 2
    assert "constraints" in outcome.err


def test_a_model_that_was_asked_for_its_modules_has_none(run: Path) -> None:
    assert sublayer("shortlist", run).code == 0
    model = load_translator(run)
    found = read_shortlist(run / "model", model.tokenizer.fingerprint, model.vocab_size)
    assert model.model.config.vocab_size == model.vocab_size
    with pytest.raises(InputError, match="alone"):
        model.with_shortlist(found)


def test_a_model_without_its_training_text_cannot_have_one(run: Path) -> None:
    (run / "model" / "recipe.toml").unlink()
    outcome = sublayer("shortlist", run)
    assert outcome.code == 2
    assert "does not say what the model was trained on" in outcome.err
