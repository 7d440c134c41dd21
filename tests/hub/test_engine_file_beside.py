"""`engine.bin` beside a model: made when missing, used where it belongs, and never a reason for another answer."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import small_run
import sublayer
from sublayer.errors import CheckpointError
from sublayer.generation.translator import Translation, Translator
from sublayer.hub import engine_file, folder
from sublayer.hub.loading import load_to_use
from sublayer.hub.location import read_description
from sublayer.hub.tensors import Release, read_tensors, write_tensors

KEPT = Path(__file__).parents[1] / "fixtures" / "models" / "encoder-decoder"
TEXTS = ["a dog", "the cat sat", "x", "where are the dogs and the cats now"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    shutil.copytree(KEPT, tmp_path / "model")
    return tmp_path / "model"


def answers(translator: Any, **options: Any) -> list[list[Translation]]:
    assert isinstance(translator, Translator)
    return [translator.translate(TEXTS, beam=beam, n_best=beam, **options) for beam in (1, 3)]


def fresh(program: str, *arguments: object) -> Any:
    """What a program prints as JSON, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return json.loads(done.stdout)


def test_the_second_start_translates_the_same_without_torch(path: Path) -> None:
    program = """
import json, sys, sublayer
translator = sublayer.load(sys.argv[1])
found = [[text.tokens, text.score, text.log_probability, text.text] for text in translator.translate(sys.argv[2:])]
print(json.dumps({"found": found, "torch": "torch" in sys.modules, "transformers": "transformers" in sys.modules}))
"""
    expected = [
        [one.tokens, one.score, one.log_probability, one.text] for one in folder.load_translator(path).translate(TEXTS)
    ]
    assert not (path / "engine.bin").exists()
    first, second = (fresh(program, path, *TEXTS) for _ in range(2))
    assert (path / "engine.bin").is_file()
    assert first["found"] == second["found"] == expected
    assert (first["torch"], second["torch"], second["transformers"]) == (True, False, False)


def test_the_command_line_needs_no_torch_either(path: Path) -> None:
    sublayer.load(path)
    program = """
import io, json, sys
from contextlib import redirect_stdout
from sublayer.cli.main import main
sys.argv[0] = "sublayer"
with redirect_stdout(io.StringIO()) as said:
    try:
        main()
    except SystemExit:
        pass
print(json.dumps([said.getvalue(), "torch" in sys.modules]))
"""
    said, torch_is_there = fresh(program, "translate", path, "--threads", 1, *TEXTS)
    assert said.splitlines() == [one.text for one in folder.load_translator(path).translate(TEXTS)]
    assert torch_is_there is False


@pytest.mark.parametrize("weights", [None, "bfloat16", "int8", "int4"])
def test_with_and_without_modules_the_translations_are_the_same(weights: Any, path: Path) -> None:
    expected = answers(folder.load_translator(path, weights=weights))
    sublayer.load(path, weights=weights)
    alone = sublayer.load(path, weights=weights)
    assert isinstance(alone, Translator)
    assert answers(alone) == expected
    assert alone.is_deferred
    # The modules come when somebody asks for them, and from then on it is they that count.
    assert isinstance(alone.model, torch.nn.Module)
    assert not alone.is_deferred
    assert answers(alone) == expected


def test_constraints_are_answered_with_torch_and_right(path: Path) -> None:
    sublayer.load(path)
    for changes in ({"no_repeat_ngram": 1}, {"min_length": 4}, {"banned": (5, 6)}):
        alone, full = sublayer.load(path), folder.load_translator(path)
        assert isinstance(alone, Translator)
        constraints = {**full.decoding.constraints.plain(), **changes}
        found = answers(alone.with_decoding(constraints=constraints))
        assert found == answers(full.with_decoding(constraints=constraints))
        assert found != answers(full)


def test_a_change_in_the_modules_counts_for_every_translator_of_them(path: Path) -> None:
    sublayer.load(path)
    alone = sublayer.load(path)
    assert isinstance(alone, Translator)
    other = alone.with_decoding(beam=1)
    before = answers(other)
    assert other.is_deferred
    with torch.no_grad():
        alone.model.output.weight.neg_()
    assert answers(alone) == answers(other) != before


def test_a_translator_without_modules_can_be_copied_and_sent(path: Path) -> None:
    sublayer.load(path)
    alone = sublayer.load(path)
    assert isinstance(alone, Translator)
    for other in (copy.deepcopy(alone), pickle.loads(pickle.dumps(alone))):  # noqa: S301  # our own
        assert other.is_deferred
        assert answers(other) == answers(alone)


def test_alignments_have_the_modules(path: Path) -> None:
    sublayer.load(path)
    alone, full = sublayer.load(path), folder.load_translator(path)
    assert isinstance(alone, Translator)
    for one, other in zip(alone.translate(TEXTS, alignments=True), full.translate(TEXTS, alignments=True), strict=True):
        assert one.tokens == other.tokens
        assert one.alignment is not None
        assert other.alignment is not None
        assert torch.equal(one.alignment, other.alignment)


# --- whether it belongs ------------------------------------------------------------------------------------------


def belongs(path: Path) -> bool:
    return engine_file.find_engine(path, read_description(path), None) is not None


def test_it_belongs_to_these_weights(path: Path) -> None:
    sublayer.load(path)
    assert belongs(path)
    tensors = read_tensors(path / "model.safetensors")
    name = next(name for name in tensors if "output" in name or "tokens" in name)
    changed = {**tensors, name: -tensors[name]}
    before = answers(sublayer.load(path))
    write_tensors(path / "model.safetensors", changed)
    assert not belongs(path)
    found = answers(sublayer.load(path))
    assert found == answers(folder.load_translator(path)) != before
    # It was made anew.
    assert belongs(path)


def test_a_copy_belongs_as_well(path: Path, tmp_path: Path) -> None:
    sublayer.load(path)
    shutil.copytree(path, tmp_path / "copy", copy_function=shutil.copyfile)  # with times of its own
    assert (path / "model.safetensors").stat().st_mtime_ns != (tmp_path / "copy/model.safetensors").stat().st_mtime_ns
    assert belongs(tmp_path / "copy")


@pytest.mark.parametrize("what", ["model", "tokenizer", "fingerprint"])
def test_it_belongs_to_this_description_and_this_tokenizer(what: str, path: Path) -> None:
    sublayer.load(path)
    if what == "tokenizer":
        (path / "tokenizer.json").write_text((path / "tokenizer.json").read_text() + "\n")
    else:
        told = json.loads((path / "config.json").read_text())
        if what == "model":
            told["model"]["max_length"] += 1
        else:
            told["tokenizer"]["fingerprint"] = "0" * 64
        (path / "config.json").write_text(json.dumps(told))
    assert not belongs(path)
    if what == "fingerprint":
        with pytest.raises(CheckpointError, match="is not this model's tokenizer"):
            sublayer.load(path)


def test_defaults_of_decoding_may_be_edited(path: Path) -> None:
    sublayer.load(path)
    told = json.loads((path / "config.json").read_text())
    told["decoding"]["beam"] = 2
    (path / "config.json").write_text(json.dumps(told))
    assert belongs(path)
    alone = sublayer.load(path)
    assert isinstance(alone, Translator)
    assert alone.is_deferred
    assert alone.decoding.beam == 2


def test_a_damaged_file_is_made_anew(path: Path) -> None:
    sublayer.load(path)
    whole = (path / "engine.bin").read_bytes()
    (path / "engine.bin").write_bytes(whole[:-64])
    assert not belongs(path)
    assert answers(sublayer.load(path)) == answers(folder.load_translator(path))
    assert (path / "engine.bin").read_bytes() == whole


def test_a_folder_that_cannot_be_written_to_is_no_failure(path: Path) -> None:
    (path / "engine.bin").mkdir()
    (path / "engine.bin" / "mine").touch()
    assert answers(sublayer.load(path)) == answers(folder.load_translator(path))
    assert (path / "engine.bin" / "mine").exists()


def test_a_folder_that_is_replaced_keeps_no_engine_of_the_old_model(path: Path) -> None:
    sublayer.load(path)
    sublayer.load(path, weights="int8")
    assert len(list(path.glob("engine*.bin"))) == 2
    found = folder.read(path)
    folder.write(path, found, folder.ModelCard("", ""))
    assert list(path.glob("engine*.bin")) == []


def test_a_training_leaves_it_beside_the_model(tmp_path: Path) -> None:
    outcome = small_run.sublayer("train", small_run.write(tmp_path, training={"steps": 2}), "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert belongs(tmp_path / "run" / "model")


# --- memory ------------------------------------------------------------------------------------------------------


def test_what_is_given_back_can_be_read_again(tmp_path: Path) -> None:
    given = {"a": torch.randn(300, 1000), "b": torch.randn(3)}
    write_tensors(tmp_path / "tensors", given)
    read = read_tensors(tmp_path / "tensors")
    give_back = Release(tmp_path / "tensors")
    freed = [give_back(tensor) for tensor in read.values()]
    if sys.platform.startswith("linux"):
        assert max(freed) > 1_000_000
    assert all(torch.equal(read[name], given[name]) for name in given)
    assert give_back(given["a"]) == 0
    assert given["a"].any()


def test_what_somebody_has_written_is_never_given_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "tensors", {"a": torch.randn(300, 1000)})
    read = read_tensors(tmp_path / "tensors")
    read["a"][7, 7] = 77.0
    assert Release(tmp_path / "tensors")(read["a"]) == 0
    assert read["a"][7, 7] == 77.0


def test_a_model_that_is_only_used_answers_as_before(path: Path) -> None:
    generator = KEPT.parent / "decoder-only"
    given: Any = load_to_use(generator)
    expected: Any = folder.load(generator)
    prompt = ["a dog"]
    assert given.generate(prompt, max_tokens=5) == expected.generate(prompt, max_tokens=5)
    for (name, one), (_, other) in zip(given.model.named_parameters(), expected.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
