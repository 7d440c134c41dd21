"""What a user does wrong: one line that says what, and what to do; exit code 2; nothing lost. Through the command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sublayer as package
from small_run import Outcome, pairs, processes, same, sublayer, trained, write
from sublayer.errors import InputError, SublayerError
from sublayer.training import checkpoint
from sublayer.training.checkpoint import listed


def complaint(outcome: Outcome) -> str:
    """The one line that the command ends with, after whatever it said on its way."""
    assert outcome.code == 2, outcome
    *before, last = outcome.err.splitlines()
    assert last.startswith("sublayer: ")
    assert not [line for line in before if line.startswith(("sublayer: ", "Traceback", "  File", "Usage"))], outcome.err
    assert len(last) < 500
    return last.removeprefix("sublayer: ")


def state(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, to see that nothing was lost."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- recipes and text --------------------------------------------------------------------------------------------


def edited(old: str, new: str) -> Callable[[Path], None]:
    def edit(recipe: Path) -> None:
        text = recipe.read_text()
        assert old in text
        recipe.write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (edited("warmup", "warmpu"), r"training\.schedule\.warmpu: unknown key; did you mean 'warmup'\?"),
        (edited("steps = 24", "steps = '24'"), r"training\.steps: should be a whole number \(given: '24'\)"),
        (edited("steps = 24", "steps = "), r"recipe\.toml, line \d+, column \d+: .*Correct it there"),
        (lambda recipe: recipe.write_bytes(b"name = '\xf1'"), r"line 1, column 9: byte 0xf1 is not UTF-8.*Save"),
        (lambda recipe: recipe.unlink(), r"no recipe '.*recipe\.toml': there is no such file\."),
        (lambda recipe: (recipe.parent / "text.tgt").unlink(), r"text\.tgt does not exist\. Check the path"),
        (
            lambda recipe: (recipe.parent / "text.tgt").write_text("one\n" * 9),
            r"text\.tgt has 9 lines but .*text\.src has 80\. Line n of one must",
        ),
        (
            lambda recipe: (recipe.parent / "text.src").write_bytes(b"fine\ncaf\xe9\n" + b"x\n" * 78),
            r"text\.src, line 2: byte 4 \(0xE9\) is not UTF-8\. Convert the file",
        ),
        (edited("test = 8", "test = 800"), r"80 distinct source sentences are too few.*Lower data\.split"),
        (edited("tokens = 120", "tokens = 7"), r"more than training\.batches\.tokens = 7\. Raise"),
    ],
    ids=["typo", "type", "toml", "encoding", "no recipe", "no text", "lines", "bad text", "split", "budget"],
)
def test_a_recipe_or_text_that_cannot_be(tmp_path: Path, spoil: Callable[[Path], None], says: str) -> None:
    recipe = write(tmp_path)
    spoil(recipe)
    assert re.search(says, complaint(sublayer("train", recipe, "--out", tmp_path / "run")))
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "training.stepss=3"], r"training\.stepss: unknown key; did you mean 'steps'\?"),
        (["--set", "training.steps"], r"--set training\.steps.*KEY=VALUE|--set training\.steps"),
        (["--set", "training.steps=many"], r"training\.steps: should be a whole number"),
        (["--set", "model.preset=hugest"], r"no preset is called 'hugest'; known: base, bert-base"),
        (["--device", "nonsense"], r"--device nonsense cannot be used here .*Try --device cpu"),
        (["--resume"], r"there is no run in .*run to resume\. Leave --resume out"),
        (["--resume", "--overwrite"], r"contradict each other\. Give one"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, arguments: list[str], says: str) -> None:
    outcome = sublayer("train", write(tmp_path), "--out", tmp_path / "run", *arguments)
    assert re.search(says, complaint(outcome))
    assert not (tmp_path / "run").exists()


def test_a_place_that_is_taken(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    (tmp_path / "file").write_text("precious")
    assert "file" in complaint(sublayer("train", recipe, "--out", tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    before = state(tmp_path)
    for out, options, says in (
        (tmp_path / "full", [], r"full is not empty and not a run\. Choose another --out"),
        (tmp_path / "full", ["--overwrite"], r"full is not empty and not a run\. Choose another --out"),
        (tmp_path, [], r"is the folder of the recipe, not of a run\. Choose another --out"),
        (tmp_path, ["--overwrite"], r"is the folder of the recipe, not of a run\. Choose another --out"),
    ):
        assert re.search(says, complaint(sublayer("train", recipe, "--out", out, *options)))
    assert state(tmp_path) == before


# --- a run that is already there ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and beside it a run that was interrupted at step 6, with checkpoints at 4 and 6. Not to be changed."""
    folder = tmp_path_factory.mktemp("stopped")
    recipe = write(folder)
    outcome = processes().run("train", recipe, "--out", folder / "run", signal_at_step={"step": 6, "signal": 2})
    assert outcome.code == 130, outcome.err
    return folder


@pytest.fixture
def copied(stopped: Path, tmp_path: Path) -> Path:
    """The run of `stopped`, to be spoilt."""
    shutil.copytree(stopped / "run", tmp_path / "run")
    return tmp_path / "run"


# Buckets that leave no room for distances: what only the model itself can tell.
RELATIVE = "model.encoder.position={ type = 'relative', buckets = 32, max_distance = 4 }"


def test_a_run_is_not_replaced_unasked_nor_by_what_cannot_be_trained(stopped: Path, copied: Path) -> None:
    before = state(copied)
    recipe = stopped / "recipe.toml"
    assert "--overwrite" in complaint(sublayer("train", recipe, "--out", copied))
    for mistake in ("data.source.source=gone.txt", "data.max_length=2", "training.batches.tokens=7", RELATIVE):
        complaint(sublayer("train", recipe, "--out", copied, "--overwrite", "--set", mistake))
        assert state(copied) == before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["training.optimizer.learning_rate=0.25"], r"training\.optimizer\.learning_rate was 0\.005, is 0\.25"),
        (["seed=7", "training.clip_norm=0.5"], r"seed was 1, is 7, training\.clip_norm was \S+, is 0\.5"),
        (["training.precision=bfloat16"], r"training\.precision was float32, is bfloat16"),
    ],
)
def test_resuming_with_another_recipe(stopped: Path, copied: Path, settings: list[str], says: str) -> None:
    options = [word for setting in settings for word in ("--set", setting)]
    before = state(copied)
    text = complaint(sublayer("train", stopped / "recipe.toml", "--out", copied, "--resume", *options))
    assert re.search(says + r".*\. Resume with the same recipe and overrides", text)
    assert state(copied) == before


def test_resuming_with_other_text_or_another_tokenizer(copied: Path, stopped: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    recipe = write(other)
    (copied / "recipe.toml").write_text((copied / "recipe.toml").read_text().replace(str(stopped), str(other)))
    one = pairs(80, 4)
    (other / "text.tgt").write_text("".join(f"{target}\n" for _, target in [*one[1:], one[0]]))
    text = complaint(sublayer("train", recipe, "--out", copied, "--resume"))
    assert re.search(r"training text or the tokenizer is not what .* began with\. Put back", text)
    write(other)
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    a, b = (tokenizer["model"]["vocab"][word] for word in ("o", "i"))
    tokenizer["model"]["vocab"] |= {"o": b, "i": a}
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    text = complaint(sublayer("train", recipe, "--out", copied, "--resume"))
    assert "training text or the tokenizer is not what" in text


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


def other_step(path: Path) -> None:
    text = path.read_text()
    assert '"batch": ' in text
    path.write_text(re.sub(r'"batch": \d+', '"batch": 0', text))


SPOILT: list[tuple[str, Callable[[Path], Any], str]] = [
    *((f"{part}.safetensors", truncated, r"is damaged: it is not what was written") for part in checkpoint.PARTS),
    ("model.safetensors", flipped, r"model\.safetensors is damaged: it is not what was written"),
    ("optimizer.safetensors", flipped, r"optimizer\.safetensors is damaged: it is not what was written"),
    ("average.safetensors", Path.unlink, r"average\.safetensors is missing"),
    ("state.json", truncated, r"state\.json cannot be read"),
    ("state.json", lambda path: path.write_text("[1, 2]"), r"state\.json cannot be read"),
    ("state.json", lambda path: path.write_bytes(b"\xff\x00garbage"), r"state\.json cannot be read"),
    ("state.json", Path.unlink, r"state\.json cannot be read"),
    ("state.json", other_step, r"state\.json is damaged: it is not what was written"),
]


@pytest.mark.parametrize(("name", "spoil", "says"), SPOILT, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(SPOILT)])
def test_a_damaged_checkpoint(stopped: Path, copied: Path, name: str, spoil: Callable[[Path], Any], says: str) -> None:
    last = listed(copied / "checkpoints")[-1]
    spoil(last / name)
    before = state(copied)
    text = complaint(sublayer("train", stopped / "recipe.toml", "--out", copied, "--resume"))
    assert re.search(says, text)
    assert text.endswith("Remove this folder and resume from the checkpoint before it.")
    assert state(copied) == before


@pytest.fixture(scope="module")
def finished(stopped: Path) -> dict[str, torch.Tensor]:
    """The weights that the run of `stopped` comes to."""
    recipe = stopped / "recipe.toml"
    assert sublayer("train", recipe, "--out", stopped / "whole").code == 0
    return load_file(stopped / "whole" / "model" / "model.safetensors")


def test_the_remedy_for_a_damaged_checkpoint_works(
    stopped: Path, copied: Path, finished: dict[str, torch.Tensor]
) -> None:
    last = listed(copied / "checkpoints")[-1]
    truncated(last / "model.safetensors")
    complaint(sublayer("train", stopped / "recipe.toml", "--out", copied, "--resume"))
    shutil.rmtree(last)
    assert sublayer("train", stopped / "recipe.toml", "--out", copied, "--resume").code == 0
    assert same(load_file(copied / "model" / "model.safetensors"), finished) == []


# --- a disk that is full -----------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(
    stopped: Path, copied: Path, finished: dict[str, torch.Tensor]
) -> None:
    """No file may grow beyond 60 kB: the weights fit, the optimizer's state does not."""
    before = state(copied / "checkpoints")
    resume = ("train", stopped / "recipe.toml", "--out", copied, "--resume")
    text = complaint(processes().run(*resume, fault=["full_disk", 60_000]))
    assert re.search(r"could not write .*step-000008: .*\. Free space .*what was there before is untouched", text)
    assert state(copied / "checkpoints") == before
    assert processes().run(*resume).code == 0
    assert same(load_file(copied / "model" / "model.safetensors"), finished) == []


@pytest.mark.parametrize("size", [1000, 5000])
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, size: int) -> None:
    """Nothing can be written, or the recipe and no more; with space, the same command works."""
    recipe = write(tmp_path, training={"steps": 4})
    start = ("train", recipe, "--out", tmp_path / "run")
    text = complaint(processes().run(*start, fault=["full_disk", size]))
    assert re.search(r"could not write .*\. Free space", text)
    assert processes().run(*start, *(["--resume"] if (tmp_path / "run" / "recipe.toml").exists() else [])).code == 0


def test_a_disk_that_fills_up_while_the_model_is_written(copied: Path, stopped: Path) -> None:
    """The checkpoints fit here; what is refused is a file of the model's folder."""
    recipe = stopped / "recipe.toml"
    assert sublayer("train", recipe, "--out", copied, "--resume").code == 0
    before = state(copied / "model")
    # The last line of the log has been written, so nothing but curves and model are.
    text = complaint(processes().run("train", recipe, "--out", copied, "--resume", fault=["full_disk", 30_000]))
    assert re.search(r"could not write .*(curves\.png|model): ", text)
    assert state(copied / "model") == before


# --- a model that is not whole -----------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the trained model, to be spoilt."""
    return Path(shutil.copytree(trained() / "model", tmp_path / "model"))


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        path = folder / "config.json"
        description = json.loads(path.read_text())
        change(description)
        path.write_text(json.dumps(description))

    return rewrite


def without_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["stranger"] = tensors.pop("encoder.layers.0.feed_forward.up.bias")
    tensors["decoder.norm.weight"] = torch.zeros(7)
    save_file(tensors, path)


def another_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    a, b = (tokenizer["model"]["vocab"][word] for word in ("o", "i"))
    tokenizer["model"]["vocab"] |= {"o": b, "i": a}
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shutil.rmtree, r"there is no folder .*model\. Train a model first"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no model: there is no config\.json.*Give a model"),
        (lambda folder: truncated(folder / "config.json"), r"config\.json is damaged: it is not JSON .*Copy"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json is not a JSON object\. Copy"),
        (rewritten(lambda d: d.update(format=99)), r"is not of sublayer's format 1\. Update sublayer"),
        (rewritten(lambda d: d.pop("tied")), r"lacks or garbles 'tied'\. Copy or train"),
        (rewritten(lambda d: d.update(tied="abc")), r"lacks or garbles .*Copy or train"),
        (rewritten(lambda d: d.update(model=3)), r"config\.json: model: should be a table"),
        (rewritten(lambda d: d["model"].update(dmi=3)), r"config\.json: model: dmi: unknown key; did you mean 'dim'"),
        (rewritten(lambda d: d["model"].update(dim=18)), r"misshapen: .*does not fit|does not fit .*misshapen: "),
        (lambda folder: truncated(folder / "model.safetensors"), r"model\.safetensors is damaged.*Copy it again"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), r"model\.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing\. Copy the folder"),
        (
            without_weights,
            r"does not fit its config\.json: missing: encoder\.layers\.0\.feed_forward\.up\.bias; "
            r"unexpected: stranger; misshapen: decoder\.norm\.weight is \(7,\) and should be \(16,\)\. Copy",
        ),
        (another_tokenizer, r"tokenizer\.json is not this model's tokenizer .*Put back the tokenizer\.json"),
        (lambda folder: truncated(folder / "tokenizer.json"), r"tokenizer\.json is not a tokenizer: .*Copy"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json is missing\. Name the folder"),
    ],
)
def test_a_model_that_is_not_whole(model: Path, spoil: Callable[[Path], Any], says: str) -> None:
    spoil(model)
    outcome = sublayer("translate", model, "ba co")
    if "misshapen" in says and "stranger" not in says:
        # Every misshapen tensor is named: a long line.
        assert outcome.code == 2
        assert re.search(says, outcome.err)
        assert len(outcome.err.splitlines()) == 1
    else:
        assert re.search(says, complaint(outcome))
    assert outcome.out == ""
    with pytest.raises(SublayerError):
        package.load(model)


def test_a_folder_without_held_out_sentences(model: Path) -> None:
    (model / "test.jsonl").unlink()
    assert re.search(r"there is no .*test\.jsonl\. Give --data", complaint(sublayer("evaluate", model)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", r"line 2: .*One plain object a line"),
        ('{"source": "ba"}', r"line 2: no field 'references'"),
        ('{"source": "ba", "references": []}', r"line 2: .*not a filled list"),
        ('{"source": " ", "references": ["x"]}', r"sentence 2 is empty\. Leave it out"),
    ],
)
def test_held_out_sentences_that_cannot_be(tmp_path: Path, line: str, says: str) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"source": "ba co", "references": ["co ba"]}\n' + line + "\n")
    assert re.search(says, complaint(sublayer("evaluate", trained(), "--data", data)))


# --- sentences ---------------------------------------------------------------------------------------------------

LONG = "ba " * 40


def test_a_sentence_longer_than_the_positions() -> None:
    text = complaint(sublayer("translate", trained(), "ba co", LONG))
    assert re.search(r"line 2 has \d+ tokens, but this model's positions end at 24: 'ba ba.*Split it into sent", text)
    with pytest.raises(InputError, match="sentence 2 has"):
        package.load(trained()).translate(["ba", LONG])
    assert re.search(r"positions end at 24", complaint(sublayer("attend", trained(), LONG)))


def test_what_stands_before_a_bad_line_is_translated_and_the_line_is_named() -> None:
    alone = sublayer("translate", trained(), "ba co", "di fu")
    lines = alone.out.splitlines()
    for bad, says in ((LONG.encode(), r"line 4 has \d+ tokens"), (b"caf\xe9", r"standard input, line 4: not UTF-8")):
        for batch in ("1", "3", "64"):
            stdin = b"ba co\n\ndi fu\n" + bad + b"\nge\n"
            outcome = sublayer("translate", trained(), "--batch", batch, stdin=stdin)
            assert re.search(says, complaint(outcome))
            assert outcome.out.splitlines() == [lines[0], "", lines[1]]


def test_an_empty_sentence() -> None:
    with pytest.raises(InputError, match=r"sentence 2 is empty\. Leave it out"):
        package.load(trained()).translate(["ba", " \t"])
    assert "the text is empty. Give it words." in complaint(sublayer("attend", trained(), " "))


def test_words_that_are_not_utf8() -> None:
    assert re.search(r"line 1 is not Unicode.*Give UTF-8", complaint(sublayer("translate", trained(), "caf\udce9")))


def test_more_translations_than_hypotheses() -> None:
    text = complaint(sublayer("translate", trained(), "--beam", "2", "--n-best", "3", "ba"))
    assert "n_best = 3 with beam = 2. Ask for 1 to `beam` translations." in text


@pytest.mark.parametrize("command", ["translate", "evaluate", "attend"])
def test_a_device_that_is_not_here(command: str) -> None:
    words = [] if command == "evaluate" else ["ba"]
    text = complaint(sublayer(command, trained(), *words, "--device", "nonsense"))
    assert re.search(r"--device nonsense cannot be used here .*Try --device cpu", text)


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_a_reader_that_has_had_enough() -> None:
    run = f"{sys.executable} -c 'from sublayer.cli.main import main; main()'"
    script = f"yes 'ba co' | head -300 | {run} translate {trained()} --batch 20 | head -1"
    outcome = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert len(outcome.stdout.splitlines()) == 1
    assert not re.search("Traceback|Exception|BrokenPipe|Error", outcome.stderr), outcome.stderr
