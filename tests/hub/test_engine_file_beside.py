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
from sublayer import config
from sublayer.errors import CheckpointError, InputError
from sublayer.generation.plan import Speculation
from sublayer.generation.speculative import PromptLookup
from sublayer.generation.translator import Translation, Translator
from sublayer.hub import engine_file, folder
from sublayer.hub.loading import load_to_use
from sublayer.hub.location import read_description
from sublayer.hub.tensors import Release, read_tensors, write_tensors

KEPT = Path(__file__).parents[1] / "fixtures" / "models" / "encoder-decoder"
TEXTS = ["a dog", "the cat sat", "x", "where are the dogs and the cats now"]


COMMAND = """
import io, json, sys
from contextlib import redirect_stdout
from sublayer.cli.main import main
sys.argv[0] = "sublayer"
with redirect_stdout(io.StringIO()) as said:
    try:
        main()
    except SystemExit:
        pass
print(json.dumps([said.getvalue(), "torch" in sys.modules, "transformers" in sys.modules]))
"""
"""A command, which says what it printed, and whether torch and transformers were imported."""


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
    said, torch_is_there, _ = fresh(COMMAND, "translate", path, "--threads", 1, *TEXTS)
    assert said.splitlines() == [one.text for one in folder.load_translator(path).translate(TEXTS)]
    assert torch_is_there is False


# --- language models ---------------------------------------------------------------------------------------------

PROMPTS = ["a dog", "the cat sat and", "x"]
SAMPLED = config.Sampling(temperature=0.8, top_k=9, top_p=0.9)
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {"search": config.Greedy(), "max_tokens": 9},
    "scored": {"search": config.Greedy(), "max_tokens": 9, "log_probabilities": True},
    "beam": {"search": config.Beam(size=3), "max_tokens": 7, "n": 2},
    "sampling": {"search": SAMPLED, "max_tokens": 9, "n": 2, "seed": 4},
    "constraints": {"constraints": config.Constraints(no_repeat_ngram=1, repetition_penalty=1.3), "max_tokens": 9},
    "stop": {"search": config.Greedy(), "max_tokens": 12, "stop": ["a", " "]},
    "past the context": {"search": config.Greedy(), "max_tokens": 80},
}


@pytest.fixture
def language(tmp_path: Path) -> Path:
    shutil.copytree(KEPT.parent / "decoder-only", tmp_path / "language")
    return tmp_path / "language"


@pytest.mark.parametrize("asked", ASKED)
def test_a_language_model_goes_on_the_same_without_its_modules(asked: str, language: Path) -> None:
    full: Any = folder.load(language)
    sublayer.load(language)
    alone: Any = sublayer.load(language)
    options = ASKED[asked]
    assert alone.generate(PROMPTS, **options) == full.generate(PROMPTS, **options)
    if options.get("n", 1) == 1:
        streams = [[*one.stream(PROMPTS[0], **options)] for one in (alone, full)]
        assert streams[0] == streams[1]
    assert alone.is_deferred
    assert isinstance(alone.model, torch.nn.Module)
    assert not alone.is_deferred
    assert alone.generate(PROMPTS, **options) == full.generate(PROMPTS, **options)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_a_language_model_in_narrower_weights_does_so_too(weights: Any, language: Path) -> None:
    full: Any = folder.load(language, weights=weights)
    sublayer.load(language, weights=weights)
    alone: Any = sublayer.load(language, weights=weights)
    assert alone.generate(PROMPTS, **ASKED["greedy"]) == full.generate(PROMPTS, **ASKED["greedy"])
    assert alone.is_deferred


def test_what_needs_the_modules_of_a_language_model_gets_them(language: Path) -> None:
    full: Any = folder.load(language)
    sublayer.load(language)
    expected = full.generate(PROMPTS, **ASKED["greedy"])
    guessing: Any = sublayer.load(language)
    assert guessing.generate(PROMPTS, speculation=Speculation(PromptLookup()), **ASKED["greedy"]) == expected
    chatting: Any = sublayer.load(language)
    assert chatting.with_prefix_cache().generate(PROMPTS, **ASKED["greedy"]) == expected


def test_the_command_generates_without_torch(language: Path) -> None:
    full: Any = folder.load(language)
    [expected] = full.generate(["a dog"], search=config.Greedy(), max_tokens=9)
    arguments = "generate", language, "a dog", "--temperature", 0, "--max-tokens", 9
    first, second = (fresh(COMMAND, *arguments) for _ in range(2))
    assert first[0] == second[0] == expected.text + "\n"
    assert first[1:] == [True, first[2]]
    assert second[1:] == [False, False]


def test_numbers_that_are_not_finite_are_traced_to_their_part_by_the_modules(language: Path) -> None:
    tensors = read_tensors(language / "model.safetensors")
    name = next(name for name in tensors if name.endswith("feed_forward.down.weight"))
    sublayer.load(language)
    before = (language / "engine.bin").read_bytes()
    write_tensors(language / "model.safetensors", {**tensors, name: torch.full_like(tensors[name], 3e38)})
    sublayer.load(language)
    assert (language / "engine.bin").read_bytes() != before
    alone: Any = sublayer.load(language)
    with pytest.raises(InputError, match=rf"{name.removesuffix('.weight')}.* gives NaN or infinity"):
        alone.generate(PROMPTS, **ASKED["greedy"])


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


def test_a_model_that_is_only_used_answers_as_before(language: Path) -> None:
    given: Any = load_to_use(language)
    expected: Any = folder.load(language)
    prompt = ["a dog"]
    assert given.generate(prompt, max_tokens=5) == expected.generate(prompt, max_tokens=5)
    for (name, one), (_, other) in zip(given.model.named_parameters(), expected.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
