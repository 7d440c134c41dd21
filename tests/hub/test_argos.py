"""Packages for Argos Translate: it installs what we write and translates as we do, and we read it back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import sentencepiece
import torch

from checkpoints import LINES, tiny_tokenizer, write_nllb
from laws.models import redraw
from small_run import sublayer, write
from sublayer import config
from sublayer.errors import CheckpointError
from sublayer.hub import folder
from sublayer.hub.ctranslate2 import model_bin
from sublayer.hub.ctranslate2.argos import Language, export_argos, import_argos
from sublayer.hub.ctranslate2.layout import LEAST, numbers
from sublayer.hub.ctranslate2.writing import export
from sublayer.hub.folder import ModelBundle
from sublayer.models import build_model
from sublayer.text import Tokenizer

ENGLISH, SPANISH = Language("en", "English"), Language("es", "Spanish")
HARD = ["ba co", " two  spaces ", "Ñandú </s> 日本", "x<0x41>y", "a_b", "l'a 5'a", "", "ba\tco"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run whose tokenizer is SentencePiece's."""
    place = tmp_path_factory.mktemp("argos")
    recipe = write(
        place,
        lines=150,
        tokenizer={"type": "sentencepiece", "vocab_size": 320},
        data={"source_language": "Forwards", "target_language": "Backwards"},
        training={"steps": 150, "batches": {"tokens": 300}, "validate_every": 150},
    )
    outcome = sublayer("train", recipe, "--out", place / "run")
    assert outcome.code == 0, outcome.err
    return place / "run"


def package(run: Path, out: Path, *options: str) -> Path:
    path = out / "translate-en_es.argosmodel"
    outcome = sublayer("export", run, path, "--format", "argos", "--from", "en", "--to", "es", *options)
    assert outcome.code == 0, outcome.err
    return path


def texts_of(run: Path) -> list[str]:
    return [json.loads(line)["source"] for line in (run / "model" / "test.jsonl").read_text().splitlines()]


SCRIPT = """
import json, sys
from argostranslate import package, sbd, translate

# The model that cuts a text into sentences is fetched from the network; each of these texts is one.
sbd.MiniSBDSentencizer.split_sentences = lambda self, text: [text]
package.install_from_path(sys.argv[1])
[installed] = package.get_installed_packages()
en, es = (translate.get_language_from_code(code) for code in ("en", "es"))
found = [en.get_translation(es).hypotheses(text, 1)[0].value for text in json.load(sys.stdin)]
json.dump({"names": [en.name, es.name], "readme": installed.get_readme(), "texts": found}, sys.stdout)
"""


def by_argos(path: Path, home: Path, texts: list[str]) -> Mapping[str, Any]:
    """What Argos Translate makes of texts, in a process and a home of its own."""
    home.mkdir()
    settings = {name: str(home) for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    # Left to itself it takes what the processor is fast at, int8 perhaps, which says other words.
    settings["ARGOS_COMPUTE_TYPE"] = "float32"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        input=json.dumps(texts).encode(),
        capture_output=True,
        env=os.environ | settings,
        cwd=home,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_argos_translate_says_what_we_say(run: Path, tmp_path: Path) -> None:
    texts = texts_of(run)
    found = by_argos(package(run, tmp_path), tmp_path / "home", texts)
    own = folder.load_translator(run)
    # It searches with 4 beams and a length penalty of 0.2 and CTranslate2 says something at least.
    ours = own.with_decoding(beam=4, length_penalty=0.2, early_stopping=True, constraints={"min_length": 1}).translate(
        texts
    )
    pairs = [(a, b.best.text) for a, b in zip(found["texts"], ours, strict=True) if b.best.complete]
    assert [a for a, _ in pairs] == [b for _, b in pairs]
    assert len(pairs) > 4
    assert found["names"] == ["Forwards", "Backwards"]
    assert found["readme"].startswith("# ")


def test_what_it_is_made_of_says_what_we_say(run: Path, tmp_path: Path) -> None:
    """CTranslate2 and SentencePiece, as Argos puts them together, greedily: token for token."""
    with zipfile.ZipFile(package(run, tmp_path)) as file:
        file.extractall(tmp_path / "out")
    [root] = (tmp_path / "out").iterdir()
    assert root.name == "translate-en_es-1_0"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(root / "sentencepiece.model"))
    model = ctranslate2.Translator(str(root / "model"), compute_type="float32", intra_threads=1)
    own = folder.load_translator(run)
    texts = texts_of(run)
    assert [pieces.encode(text) for text in [*texts, *HARD]] == own.tokenizer.encode([*texts, *HARD])
    found = model.translate_batch(pieces.encode(texts, out_type=str), beam_size=1, max_decoding_length=24)
    ours = [each.best for each in own.translate(texts, beam=1)]
    for theirs, each in zip(found, ours, strict=True):
        said = [pieces.piece_to_id(token) for token in theirs.hypotheses[0]]
        assert said == each.tokens if each.complete else said[: len(each.tokens)] == each.tokens
        assert pieces.decode(each.tokens) == each.text
    assert len({tuple(each.tokens) for each in ours}) > 3


def test_pulled_again_it_is_the_same(run: Path, tmp_path: Path) -> None:
    outcome = sublayer("pull", package(run, tmp_path), tmp_path / "back")
    assert outcome.code == 0, outcome.err
    own, again = folder.load_translator(run), folder.load_translator(tmp_path / "back")
    texts = texts_of(run)
    assert again.tokenizer.encode([*texts, *HARD]) == own.tokenizer.encode([*texts, *HARD])
    ours, theirs = own.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.translate(texts, beam=1)[0].best.tokens == own.translate(texts, beam=1)[0].best.tokens
    assert sublayer("export", tmp_path / "back", tmp_path / "hf").code == 0


def test_int8_is_smaller(run: Path, tmp_path: Path) -> None:
    (tmp_path / "narrow").mkdir()
    packages = package(run, tmp_path), package(run, tmp_path / "narrow", "--weights", "int8")
    # The two tables of sines stay as they are.
    tables = 2 * LEAST * folder.load_translator(run).model.config.dim * 4
    sizes: list[int] = []
    for path in packages:
        with zipfile.ZipFile(path) as file:
            sizes += [each.file_size - tables for each in file.infolist() if each.filename.endswith("/model.bin")]
    assert sizes[1] < 0.45 * sizes[0]


def open_nmt(path: Path) -> tuple[Path, ModelBundle]:
    """A package as OpenNMT-py's models come in: older binary, sines in a table, another vocabulary, no end token
    after a source.
    """
    own = Tokenizer.train(LINES, config.Subwords(type="sentencepiece", vocab_size=320))
    block = config.Block(
        attention=config.Attention(heads=2), feed_forward=config.PositionWise(hidden=36), norm_placement="pre"
    )
    stack = config.Stack(layers=1, block=block)
    tree = config.EncoderDecoder(dim=16, vocab_size=own.vocab_size, max_length=50, encoder=stack, decoder=stack)
    model = build_model(tree).eval()
    redraw(model, 5)
    bundle = ModelBundle(model, own, config.Decoding(source_end=False).plain())
    export_argos(path, bundle, ENGLISH, SPANISH, "# A package\n")
    return path, bundle


def test_a_source_without_an_end(tmp_path: Path) -> None:
    path, own = open_nmt(tmp_path / "x.argosmodel")
    again = import_argos(path)
    assert again.decoding["source_end"] is False
    assert again.tokenizer.encode(LINES) == own.tokenizer.encode(LINES)


def test_an_older_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without config.json; the tokens and flags stand in the binary, and the vocabulary in lines, in another order."""
    path, own = open_nmt(tmp_path / "x.argosmodel")
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "out")
    [root] = (tmp_path / "out").iterdir()
    place = root / "model"
    tokens = json.loads((place / "shared_vocabulary.json").read_text())
    order = [3, 0, 1, 2, *range(4, len(tokens))]
    (place / "shared_vocabulary.json").unlink()
    (place / "shared_vocabulary.txt").write_text("".join(f"{tokens[number]}\n" for number in order))
    (place / "config.json").unlink()
    held = model_bin.read(place / "model.bin")
    tensors: dict[str, torch.Tensor] = {name: held._read(each) for name, each in held.variables.items()}
    tensors["decoder/embeddings/weight"] = tensors["decoder/embeddings/weight"][order]
    for name in ("num_heads", "pre_norm", "activation"):
        tensors[name] = tensors.pop(f"encoder/{name}")
        del tensors[f"decoder/{name}"]
    tensors["with_target_bos"] = torch.tensor(1, dtype=torch.int8)
    tensors["bos_token"] = torch.tensor(list(b"<s>"), dtype=torch.int8)
    monkeypatch.setattr(model_bin, "VERSION", 5)
    made = {name: (lambda tensor=tensor: tensor) for name, tensor in tensors.items()}
    model_bin.write(place / "model.bin", "TransformerSpec", 4, made, held.aliases)
    with zipfile.ZipFile(tmp_path / "old.argosmodel", "w") as file:
        for each in root.rglob("*"):
            file.write(each, each.relative_to(root.parent))
    again = import_argos(tmp_path / "old.argosmodel")
    assert numbers(again.model.config).keys() == numbers(own.model.config).keys()  # pyright: ignore
    found = folder.ready(again, write_folder(tmp_path / "again", again))
    ours = folder.ready(own, write_folder(tmp_path / "own", own))
    # The table of sines is longer than the model was, and so is what it may say.
    for longer, each in zip(found.translate(LINES, beam=1), ours.translate(LINES, beam=1), strict=True):
        assert longer.tokens == each.tokens if each.complete else longer.tokens[: len(each.tokens)] == each.tokens
    assert again.tokenizer.specials.unknown == 0
    # CTranslate2 reads it too.
    model = ctranslate2.Translator(str(place), compute_type="float32")
    asked = [[again.tokenizer.token(number) for number in row] for row in again.tokenizer.encode(LINES)]
    theirs = model.translate_batch(asked, beam_size=1, max_decoding_length=20)
    tokens_said = [found.translate([text], beam=1)[0].best.tokens for text in LINES]
    assert [[again.tokenizer.backend.token_to_id(token) for token in each.hypotheses[0]][:20] for each in theirs] == [
        each[:20] for each in tokens_said
    ]


def write_folder(path: Path, bundle: ModelBundle) -> Path:
    folder.write(path, bundle, folder.ModelCard("", "A model for tests.\n"))
    return path


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_tokenizer_that_is_not_sentencepieces(kind: Any, tmp_path: Path) -> None:
    _, own = open_nmt(tmp_path / "x.argosmodel")
    other = ModelBundle(own.model, Tokenizer.train(LINES, config.Subwords(type=kind, vocab_size=320)))
    with pytest.raises(CheckpointError, match="Argos Translate cuts text by SentencePiece") as caught:
        export_argos(tmp_path / "y.argosmodel", other, ENGLISH, SPANISH, "")
    assert 'tokenizer.type = "sentencepiece"' in caught.value.remedy
    assert not (tmp_path / "y.argosmodel").exists()


def test_a_normalization_is_named(tmp_path: Path) -> None:
    _, own = open_nmt(tmp_path / "x.argosmodel")
    recipe = config.Subwords(type="sentencepiece", vocab_size=320, normalization=config.Normalization(lowercase=True))
    other = ModelBundle(own.model, Tokenizer.train(LINES, recipe))
    with pytest.raises(CheckpointError, match=r"normalizes text as SentencePiece does not") as caught:
        export_argos(tmp_path / "y.argosmodel", other, ENGLISH, SPANISH, "")
    assert "no tokenizer.normalization" in caught.value.remedy


def test_a_language_around_the_source_is_said_and_two_are_refused(tmp_path: Path) -> None:
    write_nllb(tmp_path / "nllb")
    found = folder.read(tmp_path / "nllb")
    assert export(tmp_path / "one", found) == []
    assert json.loads((tmp_path / "one" / "config.json").read_text())["bos_token"] == "eng_Latn"
    told = ModelBundle(found.model, found.tokenizer, {**found.decoding, "target_language": "spa_Latn"})
    assert export(tmp_path / "told", told) == ["target_prefix = ['spa_Latn']"]
    template = found.tokenizer.template
    two = found.tokenizer.replace(template=type(template).around([*template.before, 1], template.after))
    with pytest.raises(CheckpointError, match="one token before a source and the end token after it"):
        export(tmp_path / "two", ModelBundle(found.model, two, found.decoding))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "argos"], "--from and --to go with --format argos"),
        (["--format", "argos", "--from", "en"], "--from and --to go with --format argos"),
        (["--format", "argos", "--from", "English", "--to", "es"], "'English' is no code of a language"),
        (["--format", "ctranslate2", "--from", "en", "--to", "es"], "--from and --to go with --format argos"),
        (
            ["--format", "argos", "--from", "en", "--to", "es", "--weights", "Q8_0"],
            "no weight format of --format argos",
        ),
        (["--format", "onnx", "--weights", "int8"], "no weight format of --format onnx"),
        (["--format", "gguf"], "End its name with .gguf"),
        (["--format", "ctranslate2", "--family", "marian"], "goes with --format hf and peft"),
    ],
)
def test_options_that_do_not_go_together(run: Path, options: list[str], said: str, tmp_path: Path) -> None:
    outcome = sublayer("export", run, tmp_path / "out.argosmodel", *options)
    assert outcome.code == 2
    assert said in outcome.err
    assert not (tmp_path / "out.argosmodel").exists()


def test_a_package_that_is_there_is_replaced_only_when_told(run: Path, tmp_path: Path) -> None:
    path = package(run, tmp_path)
    arguments = ("export", run, path, "--format", "argos", "--from", "en", "--to", "es")
    assert "--overwrite" in sublayer(*arguments).err
    assert sublayer(*arguments, "--overwrite").code == 0
    (tmp_path / "folder.argosmodel").mkdir()
    outcome = sublayer("export", run, tmp_path / "folder.argosmodel", *arguments[3:], "--overwrite")
    assert "is not a file" in outcome.err


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metadata.json": None}, "no folder with a metadata.json"),
        ({"metadata.json": b'{"type": "sbd"}'}, "holds no model that translates"),
        ({"metadata.json": b"{"}, "metadata.json is damaged"),
        ({"sentencepiece.model": None, "bpe.model": b"x"}, "cuts text by Moses' rules and BPE"),
        ({"sentencepiece.model": b"nothing"}, "is not a SentencePiece model"),
        ({"model/model.bin": None}, "model.bin is missing"),
        ({"model/shared_vocabulary.json": None}, "vocabulary.txt is missing"),
    ],
)
def test_a_package_that_lacks_something(change: dict[str, bytes | None], said: str, tmp_path: Path) -> None:
    path, _ = open_nmt(tmp_path / "x.argosmodel")
    root = "translate-en_es-1_0"
    held = entries(path) | {f"{root}/{name}": value for name, value in change.items()}  # pyright: ignore
    with zipfile.ZipFile(tmp_path / "y.argosmodel", "w") as file:
        for name, value in held.items():
            if value is not None:
                file.writestr(name, value)
    with pytest.raises(CheckpointError) as caught:
        import_argos(tmp_path / "y.argosmodel")
    assert said in str(caught.value)


def test_what_would_be_written_elsewhere_is_left_out(tmp_path: Path) -> None:
    path, _ = open_nmt(tmp_path / "x.argosmodel")
    with zipfile.ZipFile(path, "a") as file:
        for name in ("../outside", "translate-en_es-1_0/../../outside", "translate-en_es-1_0/model/../../../outside"):
            file.writestr(name, b"x")
    import_argos(path)
    assert not list(tmp_path.parent.rglob("outside"))


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sublayer.hub.ctranslate2 import argos

    path, _ = open_nmt(tmp_path / "x.argosmodel")
    monkeypatch.setattr(argos, "LARGEST", 1000)
    with pytest.raises(CheckpointError, match="it would unpack to more than"):
        import_argos(path)


@pytest.mark.parametrize("kind", ["cut off", "no zip"])
def test_damaged_packages(kind: str, tmp_path: Path) -> None:
    path, _ = open_nmt(tmp_path / "x.argosmodel")
    path.write_bytes(path.read_bytes()[:900] if kind == "cut off" else b"nothing")
    outcome = sublayer("pull", path, tmp_path / "out")
    assert outcome.code == 2
    assert "is damaged or no package of Argos Translate" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_tokens_is_told_from_ours(tmp_path: Path) -> None:
    """A tokenizer trained here as byte pairs goes into the folder as tokenizer.json alone."""
    _, own = open_nmt(tmp_path / "x.argosmodel")
    small = tiny_tokenizer()
    export(tmp_path / "out", ModelBundle(own.model, small))
    assert not (tmp_path / "out" / "sentencepiece.model").exists()
    shutil.rmtree(tmp_path / "out")
