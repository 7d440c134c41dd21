"""The commands as their help shows them, on a model trained for the purpose; and the package from Python."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
import typer.main
from sacrebleu import corpus_bleu

import sublayer as package
from adapted import write_adapters, write_base
from checkpoints import tiny_llama, write_nllb
from generation.prompted import generator
from readers import write_readers
from small_run import pairs, recipe, sublayer, trained, write
from sublayer.cli.main import app
from sublayer.config.load import shipped_recipes
from sublayer.data import corpora
from sublayer.hub import catalogue
from sublayer.hub.pulling import pull

ROOT = Path(__file__).resolve().parents[2]


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command that does something: its words, and the whole of its help."""
    command = typer.main.get_command(app) if command is None else command
    if hasattr(command, "commands"):  # a group; its class is click's, or typer's own copy
        for name, sub in command.commands.items():
            yield from commands(sub, (*path, name))
    else:
        yield path, command.help or ""


COMMANDS = dict(commands())


def examples(path: tuple[str, ...]) -> list[str]:
    return re.findall(r"^ *Example: (sublayer .*)$", COMMANDS[path], flags=re.MULTILINE)


def test_the_commands_that_there_are() -> None:
    wanted = {
        "train",
        "translate",
        "generate",
        "chat",
        "evaluate",
        "attend",
        "describe",
        "check",
        "schema",
        "data list",
        "data fetch",
        "data check",
        "data prepare",
        "plan",
    }
    wanted |= {"pull", "export", "merge", "classify", "tag", "embed", "fill", "heads", "lens", "inspect", "compare"}
    wanted |= {"serve", "shortlist"}
    assert {" ".join(path) for path in COMMANDS} == wanted


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_an_example_on_one_line(path: tuple[str, ...]) -> None:
    outcome = sublayer(*path, "--help")
    assert outcome.code == 0
    [*_] = found = examples(path)
    assert found
    said = " ".join(outcome.out.split())
    for example in found:
        assert example.startswith(" ".join(("sublayer", *path)))
        assert " ".join(example.split()) in said


def test_bare_sublayer_lists_the_commands() -> None:
    outcome = sublayer()
    assert all(path[0] in outcome.out + outcome.err for path in COMMANDS)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, where the names that the examples use are a trained model, and the corpus a small one."""
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "en-es"):
        shutil.copytree(trained(), tmp_path / "runs" / name)
    (tmp_path / "english.txt").write_text("ba co\ndi fu ge\n")
    (tmp_path / "prompts.txt").write_text("one two\nthree\n")
    for command in ("generate", "chat"):
        monkeypatch.setattr(
            f"sublayer.cli.{command}.load_generator", lambda path, device, weights=None: generator(max_tokens=20)
        )
    # It would serve until somebody stops it.
    monkeypatch.setattr("sublayer.inspection.listening.serve", lambda app, listening: None)
    monkeypatch.setattr("sublayer.serving.running.serve", lambda server, listening, load: load())
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("".join(f"{a}\t{b}\n" for a, b in pairs(60, 4)))
    monkeypatch.setattr(corpora, "fetch", lambda name, progress=None: corpus)
    theirs = tiny_llama(tmp_path / "elsewhere")
    monkeypatch.setattr(catalogue, "fetch", lambda name, progress=None: theirs)
    pull(str(theirs), tmp_path / "models" / "my-llama")
    write_readers(tmp_path / "models")
    write_nllb(tmp_path / "models" / "nllb")
    small_comparison(monkeypatch)
    write_adapters(tmp_path / "runs" / "smollm2-trec" / "model", write_base(tmp_path / "models" / "base"))
    talk = {"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]}
    (tmp_path / "runs" / "smollm2-trec" / "model" / "test.jsonl").write_text(json.dumps(talk) + "\n")
    return tmp_path


def small_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of a few seconds; the parts that train models on a corpus have tests of their own."""
    from sublayer.compare import plan, positions, translation

    rates = plan.Rates((1e-3,), (1e-3,))
    small = plan.Plan(
        parallel=plan.Parallel(lengths=(4, 8), tokens=16, dim=16, layers=1, vocab_size=20, warm_up=0.0, repeats=1),
        recall=plan.Recall((8, 16), steps=2, rows=4, dim=16, layers=1, rates=rates, tested=4),
    )
    monkeypatch.setattr(plan, "QUICK", small)
    monkeypatch.setattr(plan, "FULL", small)
    for part in (translation, positions):
        monkeypatch.setattr(part, "measure", lambda *given: None)


TRIED = [(path, example) for path in COMMANDS for example in examples(path)]


@pytest.mark.parametrize(("path", "example"), TRIED, ids=[example for _, example in TRIED])
def test_examples_in_help_run(workplace: Path, path: tuple[str, ...], example: str) -> None:
    example, _, goal = example.partition(" > ")
    example, _, given = example.partition(" < ")
    words = shlex.split(example)[1:]
    if path == ("train",):
        # The example trains for minutes on the real corpus: here a smaller model, on less text, for a few steps.
        shutil.rmtree(workplace / "runs")
        words = [word for word in words if "minutes" not in word and word != "--set"]
        small = ["data.split.validation=4", "data.split.test=4", "tokenizer.vocab_size=300", "model.preset=tiny"]
        for setting in (*small, "training.steps=2"):
            words += ["--set", setting]
    if path == ("data", "prepare"):
        for setting in ("data.split.validation=4", "data.split.test=4", "tokenizer.vocab_size=300"):
            words += ["--set", setting]
    stdin = (workplace / given).read_bytes() if given else b"one two\n" if path == ("chat",) else b""
    outcome = sublayer(*words, stdin=stdin)
    assert outcome.code == 0, outcome.err
    assert outcome.out
    if goal:
        assert len(outcome.out.splitlines()) == 2
    if "--out" in words:
        assert (workplace / words[words.index("--out") + 1]).exists()


# --- translate ---------------------------------------------------------------------------------------------------

SENTENCES = ["ba co", "di fu ge ha", "ki", "lo mu ne", "pa ri ba"]


def test_standard_input_keeps_order_and_empty_lines() -> None:
    alone = [sublayer("translate", trained(), sentence).out for sentence in SENTENCES]
    assert len(set(alone)) > 1
    assert sublayer("translate", trained(), *SENTENCES).out == "".join(alone)
    lines = ["", *SENTENCES[:2], "  ", "", *SENTENCES[2:], ""]
    expected = ["\n", *alone[:2], "\n", "\n", *alone[2:], "\n"]
    for ending in ("\n", "\r\n"):
        stdin = ending.join(lines).encode() + ending.encode()
        for batch in (1, 3, 64):
            outcome = sublayer("translate", trained(), "--batch", batch, stdin=stdin)
            assert outcome.out == "".join(expected)
    # The last line need not end.
    assert sublayer("translate", trained(), stdin=SENTENCES[0].encode()).out == alone[0]
    assert sublayer("translate", trained(), stdin=b"").out == ""


def test_n_best_and_scores() -> None:
    out = sublayer("translate", trained(), "--beam", 3, "--n-best", 3, "--scores", *SENTENCES).out
    rows = [line.split("\t") for line in out.splitlines()]
    assert len(rows) == 3 * len(SENTENCES)
    found = package.load(trained()).translate(SENTENCES, beam=3, n_best=3)
    expected = [
        [f"{one.score:.4f}", f"{one.log_probability:.4f}", one.text] for sentence in found for one in sentence.n_best
    ]
    assert rows == expected
    for sentence in found:
        scores = [one.score for one in sentence.n_best]
        assert scores == sorted(scores, reverse=True)
    # More than the model's own beam is asked for without saying how many to keep.
    assert len(sublayer("translate", trained(), "--n-best", 4, "ba").out.splitlines()) == 4


def test_beam_and_length_penalty_are_passed_on() -> None:
    model = package.load(trained())
    for beam, penalty in ((1, 0.0), (4, 0.0), (4, 2.0)):
        options = ("--beam", beam, "--length-penalty", penalty, "--scores")
        outcome = sublayer("translate", trained(), *options, *SENTENCES)
        expected = [one.score for one in model.translate(SENTENCES, beam=beam, length_penalty=penalty)]
        assert [float(line.split("\t")[0]) for line in outcome.out.splitlines()] == pytest.approx(expected, abs=1e-4)


def test_a_translation_that_is_cut_is_reported() -> None:
    """By a model of chance, which seldom ends a sentence."""
    model = package.load(trained())
    cut = [number for number, one in enumerate(model.translate(SENTENCES), start=1) if not one.complete]
    outcome = sublayer("translate", trained(), *SENTENCES)
    reported = [int(number) for number in re.findall(r"line (\d+): the translation reached its length", outcome.err)]
    assert reported == cut


# --- evaluate ----------------------------------------------------------------------------------------------------


def test_held_out_sentences_are_scored(tmp_path: Path) -> None:
    out = tmp_path / "translations.jsonl"
    outcome = sublayer("evaluate", trained(), "--out", out)
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    held_out = [json.loads(line) for line in (trained() / "model" / "test.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert [(row["source"], row["references"]) for row in rows] == [
        (row["source"], row["references"]) for row in held_out
    ]
    text = package.load(trained()).translate([row["source"] for row in rows])
    assert [row["translation"] for row in rows] == [one.text for one in text]
    score = corpus_bleu([row["translation"] for row in rows], [[row["references"][0] for row in rows]])
    assert f"BLEU       {score.score:.2f}   nrefs:1|case:mixed" in outcome.out
    assert "sentences  8 (" in outcome.out
    assert "\nchrF " in outcome.out


def test_data_of_ones_own_is_scored(tmp_path: Path) -> None:
    """With references that are what the model says, the scores are 100; the second of them counts too."""
    sources = SENTENCES
    texts = [one.text for one in package.load(trained()).translate(sources, beam=1)]
    data = tmp_path / "data.jsonl"
    rows = [{"source": source, "references": ["zu zu", text]} for source, text in zip(sources, texts)]
    data.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    outcome = sublayer("evaluate", trained(), "--data", data, "--beam", 1)
    assert outcome.code == 0, outcome.err
    assert "BLEU       100.00" in outcome.out
    assert "chrF       100.00" in outcome.out


# --- from Python -------------------------------------------------------------------------------------------------


def test_a_model_from_python() -> None:
    model = package.load(trained())
    assert [one.source for one in model.translate(SENTENCES)] == SENTENCES
    for folder in (str(trained()), trained() / "model"):
        assert package.load(folder).translate(["ba co"])[0].tokens == model.translate(["ba co"])[0].tokens
    plain, aligned = model.translate(SENTENCES, beam=2), model.translate(SENTENCES, beam=2, alignments=True)
    assert plain[0].alignment is None
    for one, other in zip(plain, aligned):
        assert (one.text, one.score) == (other.text, other.score)
        alignment = other.alignment
        assert alignment is not None
        assert alignment.shape == (len(other.tokens), len(model.encode([other.source])[0]))
        torch.testing.assert_close(alignment.sum(dim=1), torch.ones(len(other.tokens)))
    assert any((one.alignment.max(dim=1).values > 1.5 / one.alignment.shape[1]).any() for one in aligned)  # type: ignore


def test_weights_are_those_that_were_trained_and_tied() -> None:
    model = package.load(trained()).model
    assert model.output.weight is model.encoder.embedding.tokens.weight is model.decoder.embedding.tokens.weight
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_import_stays_light() -> None:
    heavy = ["torch", "numpy", "transformers", "matplotlib", "tokenizers", "sacrebleu", "pydantic", "typer", "rich"]
    script = (
        "import sys, json, sublayer; before = [m for m in sys.argv[1:] if m in sys.modules];"
        "sublayer.load; after = [m for m in sys.argv[1:] if m in sys.modules];"
        "print(json.dumps([before, after]))"
    )
    outcome = subprocess.run([sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True)
    before, after = json.loads(outcome.stdout)
    assert before == []
    # Whether torch is needed is known when a model is there.
    assert "pydantic" in after
    assert not {"torch", "transformers", "matplotlib", "sacrebleu", "typer", "rich"} & set(after)


def test_what_the_package_has_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


# --- the recipes that come along ---------------------------------------------------------------------------------


def test_the_own_text_example_trains_end_to_end(tmp_path: Path) -> None:
    recipe = ROOT / "examples" / "own-text" / "recipe.toml"
    settings = ["training.steps=12", "training.validate_every=6", "training.schedule.warmup=4"]
    options = [word for setting in settings for word in ("--set", setting)]
    outcome = sublayer("train", recipe, "--out", tmp_path / "run", *options)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"model: {tmp_path / 'run' / 'model'}\ncurves: {tmp_path / 'run' / 'curves.png'}\n"
    assert "training: 260 of 320 pairs; left out: 20 held out for validation; 40 held out for the test" in outcome.err
    names = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "recipe.toml",
        "README.md",
        "test.jsonl",
        "scores.json",
        "engine.bin",
    }
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    translated = sublayer("translate", tmp_path / "run", "--beam", 1, "I see two red cats.")
    assert (translated.code, translated.out.count("\n")) == (0, 1)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "en to es" in card
    assert "260 training pairs, 20 for validation, 40 held out" in card


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_can_be_described(name: str) -> None:
    outcome = sublayer("describe", name, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["tree"]["name"] == name


def test_a_given_split_and_the_other_kinds_of_text(tmp_path: Path) -> None:
    """TSV for training, JSON lines for validation, and lines for the test: all the way to a model and its card."""
    recipe = write(tmp_path)
    text = pairs(90, 4)
    (tmp_path / "train.tsv").write_text("".join(f"{i}\t{b}\t{a}\n" for i, (a, b) in enumerate(text[:70])))
    rows = [json.dumps({"en": a, "xx": b}) for a, b in text[60:80]]
    (tmp_path / "check.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "text.src").write_text("".join(f"{a}\n" for a, _ in text[80:]))
    (tmp_path / "text.tgt").write_text("".join(f"{b}\n" for _, b in text[80:]))
    settings = {
        "data.source": "{ type = 'tsv', path = 'train.tsv', source_column = 2, target_column = 1 }",
        "data.split": "{ type = 'given', "
        "validation = { type = 'jsonl', path = 'check.jsonl', source_field = 'en', target_field = 'xx' }, "
        "test = { type = 'lines', source = 'text.src', target = 'text.tgt' } }",
        "training.steps": "2",
    }
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    outcome = sublayer("train", recipe, "--out", tmp_path / "run", *options)
    assert outcome.code == 0, outcome.err
    assert "60 training pairs, 20 for validation, 10 held out" in outcome.err
    again = sublayer("train", tmp_path / "run" / "recipe.toml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    held_out = [json.loads(line) for line in (tmp_path / "run" / "model" / "test.jsonl").read_text().splitlines()]
    assert held_out == [{"source": a, "references": [b]} for a, b in text[80:]]


def test_the_version() -> None:
    outcome = sublayer("--version")
    assert (outcome.code, outcome.out) == (0, f"sublayer {version('sublayer')}\n")


def test_describe_takes_the_folder_of_a_run() -> None:
    run = trained()
    outcomes = [sublayer("describe", folder, "--length", 16, "--json") for folder in (run, run / "model")]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    whole, inner = (json.loads(outcome.out) for outcome in outcomes)
    assert whole["parameters"] == inner["parameters"]


def test_describe_counts_the_vocabulary_of_the_model_to_begin_with(tmp_path: Path) -> None:
    """A recipe with a start has no tokenizer of its own, and no default one either."""
    run = trained()
    data = {name: value for name, value in recipe().items() if name not in ("tokenizer", "model")}
    file = tmp_path / "recipe.toml"
    file.write_text(tomli_w.dumps(data | {"start": {"path": str(run)}}))
    outcomes = [sublayer("describe", what, "--length", 16, "--json") for what in (file, run)]
    begun, whole = (json.loads(outcome.out) for outcome in outcomes)
    assert begun["parameters"] == whole["parameters"]


@pytest.mark.parametrize(("reference", "said"), [("zu zu zu zu", True), (None, False)])
def test_a_bleu_of_nothing_is_said_plainly(tmp_path: Path, reference: str | None, said: bool) -> None:
    """Against references that share no word with what is written, and against what is written itself."""
    run = trained()
    [(source, _)] = pairs(1, 4)
    written = sublayer("translate", run, source).out.strip()
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps({"source": source, "references": [reference or written]}) + "\n", encoding="utf-8")
    outcome = sublayer("evaluate", run, "--data", file)
    assert outcome.code == 0, outcome.err
    assert ("the model has not learned to translate yet: " in outcome.out) == said
