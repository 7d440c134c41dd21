"""Scores against sacreBLEU itself, and the validation loss against one sentence at a time."""

from __future__ import annotations

import json

import pytest
import torch
from sacrebleu import corpus_bleu, corpus_chrf
from sacrebleu.metrics.bleu import BLEU
from torch.nn import functional as F

from small_run import sublayer, tree, write
from sublayer import config
from sublayer.data.encoding import encode
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.errors import InputError
from sublayer.models import EncoderDecoder
from sublayer.tasks.scores import bleu_metric, bleu_tokenizer, score
from sublayer.tasks.translation import validation_loss
from sublayer.text import PairAffixes, Tokenizer

HYPOTHESES = [
    "The cat sat on the mat.",
    "A dog is barking at the old tree",
    "I have seen nothing like it!",
    "Where is the station?",
]
REFERENCES = [
    ["The cat sat on a mat.", "A cat was sitting on the mat."],
    ["A dog barks at the old tree."],
    ["I have never seen anything like it!", "I saw nothing like it.", "Nothing like it have I seen!"],
    ["Where's the station?", "Where is the railway station?"],
]


def test_scores_are_sacrebleus() -> None:
    found = score(HYPOTHESES, REFERENCES)
    streams = [[one[k] if k < len(one) else None for one in REFERENCES] for k in range(3)]
    assert found.bleu == pytest.approx(corpus_bleu(HYPOTHESES, streams).score, abs=1e-12)
    assert found.chrf == pytest.approx(corpus_chrf(HYPOTHESES, streams).score, abs=1e-12)
    assert 0 < found.bleu < 100
    assert found.sentences == 4
    assert "nrefs:var" in found.bleu_signature
    assert "version:" in found.chrf_signature


def test_every_reference_counts_for_its_own_sentence() -> None:
    """By sacreBLEU's own words: a sentence alone, with all of its references, wherever its list stands."""
    last = score([HYPOTHESES[2]], [REFERENCES[2]])
    assert last.bleu == pytest.approx(corpus_bleu([HYPOTHESES[2]], [[one] for one in REFERENCES[2]]).score)
    exact = score(HYPOTHESES, [[*others, hypothesis] for hypothesis, others in zip(HYPOTHESES, REFERENCES)])
    assert (exact.bleu, exact.chrf) == pytest.approx((100.0, 100.0))


def test_validation_loss_is_the_mean_over_tokens() -> None:
    sources = ["ba co", "di fu ge ha ki", "lo", "mu ne pa", "co co co co"]
    targets = ["co ba di", "ge", "lo lo lo lo", "mu ne pa", "fu fu"]
    tokenizer = Tokenizer.train([*sources, *targets], config.Subwords(vocab_size=300))
    encoded = encode(
        Pairs(list(zip(sources, targets, strict=True)), Report(read=5, kept=5)),
        tokenizer,
        16,
        PairAffixes.of(tokenizer, config.Decoding()),
    )
    model = EncoderDecoder(tree(tokenizer.vocab_size, dropout=0.5)).train()
    with torch.no_grad():
        model.output.weight.mul_(3.0)
    found = validation_loss(model, encoded, config.Batching(tokens=24))
    assert model.training
    model.eval()
    total, tokens = 0.0, 0
    for source, target in zip(tokenizer.encode(sources), tokenizer.encode(targets)):
        fed = torch.tensor([[tokenizer.start_id, *target]])
        wanted = torch.tensor([*target, tokenizer.end_id])
        with torch.no_grad():
            logits = model(torch.tensor([[*source, tokenizer.end_id]]), None, fed)[0]
        total += F.cross_entropy(logits.double(), wanted, reduction="sum").item()
        tokens += len(wanted)
    assert found == pytest.approx(total / tokens, rel=1e-5)
    assert found > 1.0


CHINESE = ["我喜欢这本书。", "他昨天去了北京。", "今天天气很好。", "你叫什么名字？"]


@pytest.mark.parametrize("language", ["zh", "zh_CN", "zho_Hans", "__zh__", ">>cmn_Hans<<", "Mandarin Chinese"])
def test_chinese_is_cut_into_words_as_sacrebleu_does(language):
    """Word for word right is 100, and the signature says how words were cut."""
    found = score(CHINESE, [[one] for one in CHINESE], bleu_tokenizer(language))
    assert found.bleu == pytest.approx(100)
    assert "tok:zh" in found.bleu_signature
    assert score(CHINESE, [[one] for one in CHINESE], bleu_tokenizer("Spanish")).bleu == 0.0


@pytest.mark.parametrize("code", ["zh", "ja", "ko", "de", "en", ""])
def test_the_choice_is_sacrebleus_own(code):
    known = BLEU._TOKENIZER_MAP
    assert bleu_tokenizer(code) == known.get(code, BLEU.TOKENIZER_DEFAULT)
    assert bleu_tokenizer(code, "char") == "char"


def test_names_that_only_look_alike_are_no_languages():
    assert {bleu_tokenizer(name) for name in ("target", "Zhuang", "Javanese", "Kongo", "jav_Latn", None)} == {"13a"}


def test_a_tokenizer_that_is_not_there_is_named(monkeypatch):
    def missing(name):
        raise RuntimeError("Please install the mecab package")

    monkeypatch.setattr("sacrebleu.metrics.bleu._get_tokenizer", missing)
    with pytest.raises(InputError, match=r"'ja-mecab' is not there \(Please install"):
        bleu_metric("ja-mecab")


def test_validation_and_evaluate_cut_alike(tmp_path):
    """The recipe's target language decides in both; `--tokenize` and task.bleu say otherwise."""
    path = write(tmp_path, data={"target_language": "Chinese"}, training={"steps": 2, "validate_every": 2})
    text = (tmp_path / "text.tgt").read_text()
    (tmp_path / "text.tgt").write_text(text.translate(str.maketrans("bcdfghklmnpr", "你我他这那书去了北京今天")))
    outcome = sublayer("train", path, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    for options, expected in (((), "tok:zh"), (("--tokenize", "char"), "tok:char")):
        outcome = sublayer("evaluate", tmp_path / "run", *options)
        assert expected in outcome.out, outcome.err
    assert "BleuTokenizer" not in sublayer("evaluate", tmp_path / "run", "--tokenize", "nonsense").err
    assert sublayer("evaluate", tmp_path / "run", "--tokenize", "nonsense").code == 2


def test_every_held_out_sentence_is_scored(tmp_path):
    """One that is longer than the model's positions is cut there, and that is said; it does not drop out."""
    path = write(tmp_path, training={"steps": 2, "validate_every": 2})
    assert sublayer("train", path, "--out", tmp_path / "run").code == 0
    rows = [{"source": "ba co", "references": ["co ba"]}, {"source": "ba co di " * 30, "references": ["di co ba"]}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = sublayer("evaluate", tmp_path / "run", "--data", tmp_path / "test.jsonl", "--out", tmp_path / "out.jsonl")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("sentences  2 ")
    assert "1 sources are longer than the model's positions and are cut there" in outcome.err
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in written] == [row["source"] for row in rows]
