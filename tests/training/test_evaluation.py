"""Scores against sacreBLEU itself, and the validation loss against one sentence at a time."""

from __future__ import annotations

import pytest
import torch
from sacrebleu import corpus_bleu, corpus_chrf
from torch.nn import functional as F

from small_run import tree
from sublayer import config
from sublayer.data.encoding import encode
from sublayer.data.report import Report
from sublayer.data.sources import Pairs
from sublayer.models import EncoderDecoder
from sublayer.text import Marks, Tokenizer
from sublayer.training.evaluation import score, validation_loss

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
        Pairs(sources, targets, Report(read=5, kept=5)), tokenizer, 16, Marks.of(tokenizer, config.Decoding())
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
