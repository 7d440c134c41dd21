"""The commands `attend`, `heads` and `lens` on every shape of model: what they print, write and refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from checkpoints import tiny_llama
from readers import encoder, word_tokenizer, write_readers
from small_run import pairs, sublayer, trained
from sublayer import config
from sublayer.hub.folder import ModelBundle, ModelCard, write
from sublayer.hub.pulling import pull

TEXTS = {"llama": "the cat sat on the mat", "bert": "the [MASK] sat on a mat", "sentiment": "the cat sat on a mat"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    pull(str(tiny_llama(tmp_path_factory.mktemp("elsewhere"))), folder / "llama")
    write_readers(folder)
    write(folder / "bare", ModelBundle(encoder(config.NoHead()).float(), word_tokenizer()), ModelCard("", ""))
    (folder / "labelled.jsonl").write_text(
        '{"text": "the cat sat", "label": "pos"}\n\n{"text": "a dog on a mat", "label": "neg"}\n'
    )
    (folder / "tagged.jsonl").write_text('{"words": ["the", "cat", "sat"], "tags": ["O", "B-PER", "O"]}\n')
    (folder / "pairs.jsonl").write_text(
        "".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in pairs(3, 4, seed=5))
    )
    return folder


# --- attend ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "title"), [("llama", "Decoder"), ("bert", "Encoder"), ("bare", "Encoder")])
def test_attend_draws_the_one_attention_that_there_is(models, tmp_path, name, title):
    out = tmp_path / "a.svg"
    outcome = sublayer("attend", models / name, "the cat sat on a mat", "--out", out)
    assert (outcome.code, outcome.out) == (0, f"The picture is {out}\n")
    picture = out.read_text()
    assert f">{title} self-attention<" in picture
    assert ">the cat sat on a mat<" in picture
    assert "Cross-attention" not in picture


def test_attend_refuses_what_is_only_for_translators(models, tmp_path):
    outcome = sublayer("attend", models / "bert", "the cat", "--target", "le chat", "--out", tmp_path / "a.svg")
    assert outcome.code == 2
    assert re.search("--target is for models that translate, and this one is of the kind 'encoder-only'", outcome.err)
    outcome = sublayer("attend", models / "llama", "the cat", "--layer", 2, "--out", tmp_path / "a.svg")
    assert re.search("there is no layer 2. The layers are 0 to 1", outcome.err)
    assert not list(tmp_path.iterdir())


# --- heads -------------------------------------------------------------------------------------------------------


def test_heads_of_a_translator_on_its_own_held_out_sentences(tmp_path):
    out, figures = tmp_path / "heads.png", tmp_path / "heads.json"
    outcome = sublayer("heads", trained(), "--limit", 5, "--ablate", "--out", out, "--figures", figures)
    assert outcome.code == 0, outcome.err
    for title in ("Encoder self-attention", "Decoder self-attention", "Cross-attention"):
        assert title in outcome.out
    assert re.search(r"│ even  .*│ tokens ", outcome.out, flags=re.DOTALL)
    assert out.read_bytes().startswith(b"\x89PNG")
    found = json.loads(figures.read_text())
    assert set(found["attention"]) == {"encoder", "decoder", "cross"}
    cross = found["attention"]["cross"]
    assert len(cross["diagonal"]["heads"]) == 1
    assert len(cross["diagonal"]["heads"][0]) == 2
    assert 0 < cross["diagonal"]["even"] < 1
    assert len(cross["loss when off"]["standard error"][0]) == 2
    assert found["loss"] > 0
    assert "5 rows of test.jsonl" in found["read"]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("llama", ["the cat sat", "on the mat"], "read: 2 texts"),
        ("bert", ["the cat sat on a mat"], "over 1 targets"),
        ("sentiment", ["--data", "labelled.jsonl"], "over 2 targets"),
        ("tagger", ["--data", "tagged.jsonl"], "over 3 targets"),
    ],
)
def test_heads_of_every_shape_with_the_loss_of_its_own_task(models, tmp_path, name, arguments, says):
    given = [models / one if one.endswith("jsonl") else one for one in arguments]
    out = tmp_path / "heads.svg"
    outcome = sublayer("heads", models / name, *given, "--ablate", "--out", out)
    assert outcome.code == 0, outcome.err
    assert says in outcome.out
    assert re.search(r"loss \d+\.\d{4} nats", outcome.out)
    assert ">loss when off<" in out.read_text()


def test_heads_of_a_translator_on_pairs_and_on_its_own_translations(models):
    for given in (["--data", models / "pairs.jsonl"], ["ba co di"]):
        outcome = sublayer("heads", trained(), *given)
        assert outcome.code == 0, outcome.err
        assert "loss when off" not in outcome.out
        assert "diagonal" in outcome.out


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("llama", [], r"has no held-out rows \(test\.jsonl\)\. Give texts"),
        ("llama", ["a", "--data", "pairs.jsonl"], "both texts and --data were given"),
        ("llama", ["--data", "pairs.jsonl"], r"line 1: no field 'text' \(fields: source, target\)"),
        ("llama", ["--data", "nothing.jsonl"], "nothing.jsonl"),
        ("llama", ["  "], "the text is empty"),
        ("llama", ["the cat " * 40], "this model's positions end at 48"),
        ("minilm", ["the cat", "--ablate"], "a sentence-embedding model has no loss on text"),
        ("sentiment", ["the cat", "--ablate"], "a classification model has no loss on text"),
        ("sentiment", ["--data", "wrong.jsonl"], r"no label 'good'.*neg, pos"),
        ("tagger", ["--data", "untagged.jsonl"], "line 1: 2 words with 1 tags"),
        ("llama", ["the cat", "--out", "heads.gif"], r"heads\.gif ends in '\.gif'"),
    ],
)
def test_what_heads_refuses(models, name, arguments, says):
    (models / "wrong.jsonl").write_text('{"text": "the cat", "label": "good"}\n')
    (models / "untagged.jsonl").write_text('{"words": ["the", "cat"], "tags": ["O"]}\n')
    given = [models / one if one.endswith(("jsonl", "gif")) else one for one in arguments]
    outcome = sublayer("heads", models / name, *given)
    assert outcome.code == 2
    assert re.search(says, outcome.err), outcome.err
    assert not (models / "heads.gif").exists()


# --- lens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_lens_everywhere_and_at_one_position(models, name):
    outcome = sublayer("lens", models / name, TEXTS[name])
    assert outcome.code == 0, outcome.err
    for column in ("reads", "embedding", "layer 0", "layer 1"):
        assert column in outcome.out
    assert len(re.findall(r"^│ \d+ ", outcome.out, flags=re.MULTILINE)) >= 6
    outcome = sublayer("lens", models / name, TEXTS[name], "--at", 2, "--best", 3, "--words")
    assert outcome.code == 0, outcome.err
    assert "at position 2" in outcome.out
    assert "attention rollout" in outcome.out


def test_lens_takes_the_logit_apart_and_the_parts_sum_to_it(models):
    outcome = sublayer("lens", models / "llama", TEXTS["llama"], "--parts", "--token", "cat")
    assert outcome.code == 0, outcome.err
    layers = outcome.out[outcome.out.index("by layers") : outcome.out.index("largest parts")]
    *parts, whole = (float(one) for one in re.findall(r"[+-]\d+\.\d{3}", layers))
    assert len(parts) == 3
    assert sum(parts) == pytest.approx(whole, abs=0.003)


def test_lens_of_a_translation_and_of_a_label(models):
    outcome = sublayer("lens", trained(), "ba co di", "--target", "di co ba", "--at", 0, "--parts", "--words")
    assert outcome.code == 0, outcome.err
    assert "attention rollout" not in outcome.out
    assert "cross head" in outcome.out
    outcome = sublayer("lens", models / "sentiment", TEXTS["sentiment"], "--words", "--token", "neg")
    assert outcome.code == 0, outcome.err
    assert "of the whole text" in outcome.out
    assert "Where neg comes from" in outcome.out


def test_what_is_shown_is_never_markup(models):
    outcome = sublayer("lens", models / "llama", "[bold]cat[/bold] [red]", "--at", -1)
    assert outcome.code == 0, outcome.err
    assert "at position" in outcome.out


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("llama", ["the cat", "--at", 99], r"no position 99\. The positions are 0 to"),
        ("llama", ["the cat", "--parts", "--token", "hippopotamus"], "'hippopotamus' is no single token"),
        ("sentiment", ["the cat", "--parts"], r"head's own layer \(tanh\)"),
        ("sentiment", ["the cat", "--words", "--token", "posi"], "no label 'posi'. Did you mean 'pos'"),
        ("bert", ["the [MASK] sat", "--parts"], r"masked-language head's own layer \(gelu\)"),
        ("minilm", ["the cat"], "'sentence-embedding' says nothing of a single token"),
        ("llama", [" "], "the text is empty"),
        ("llama", ["cat", "--target", "chat"], "--target is for models that translate"),
    ],
)
def test_what_lens_refuses(models, name, arguments, says):
    outcome = sublayer("lens", models / name, *arguments)
    assert outcome.code == 2
    assert re.search(says, outcome.err), outcome.err
