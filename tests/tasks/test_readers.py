"""What encoders are used for, against the model asked by hand."""

from __future__ import annotations

import pytest
import torch

from readers import WORDS, encoder, word_tokenizer
from sublayer import config
from sublayer.errors import InputError
from sublayer.reading import Classifier, Embedder, Filler, Tagger
from sublayer.text import Tokenizer

TEXTS = ["the cat sat", "a dog", "the cat sat on a mat", "mat"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return word_tokenizer()


def test_texts_are_classified_in_order_as_one_by_one(tokenizer):
    classifier = Classifier(encoder(config.Classification(labels=("x", "y", "z"), pooling="mean")), tokenizer)
    done: list[int] = []
    found = classifier.classify(TEXTS, batch_tokens=16, progress=done.append)
    assert sum(done) == len(TEXTS)
    for text, one in zip(TEXTS, found, strict=True):
        ids = torch.tensor(tokenizer.encode_with_special_tokens([text]))
        expected = classifier.model(ids).softmax(-1)[0]
        assert one.text == text
        assert one.label == "xyz"[int(expected.argmax())]
        for label, probability in zip("xyz", expected.tolist(), strict=True):
            assert one.probabilities[label] == pytest.approx(probability, rel=1e-6)


def test_pairs_are_told_apart_by_their_kind(tokenizer):
    classifier = Classifier(encoder(config.Classification(labels=("x", "y"))), tokenizer)
    found = classifier.classify([("a dog", "the cat")])[0]
    ids = torch.tensor([[2, 9, 11, 3, 5, 6, 3]])
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    expected = classifier.model(ids, None, types).softmax(-1)[0]
    assert found.probabilities["x"] == pytest.approx(expected[0].item(), rel=1e-6)
    assert found.probabilities["x"] != pytest.approx(classifier.model(ids).softmax(-1)[0, 0].item(), rel=1e-3)


def test_a_word_has_the_tag_of_its_first_token(tokenizer):
    tagger = Tagger(encoder(config.Tagging(labels=("B", "I", "O"))), tokenizer)
    found = tagger.tag(["the cat sat", ["a", "dog"]])
    for words, one in zip((["the", "cat", "sat"], ["a", "dog"]), found, strict=True):
        ids = torch.tensor(tokenizer.encode_with_special_tokens([" ".join(words)]))
        expected = tagger.model(ids)[0, 1:-1].argmax(-1)
        assert one.words == words
        assert one.tags == ["BIO"[i] for i in expected]


def test_vectors_come_in_order_and_have_length_one(tokenizer):
    embedder = Embedder(encoder(config.SentenceEmbedding()), tokenizer)
    found = embedder.embed(TEXTS, batch_tokens=16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(TEXTS)))
    for text, vector in zip(TEXTS, found, strict=True):
        alone = embedder.model(torch.tensor(tokenizer.encode_with_special_tokens([text])))[0]
        torch.testing.assert_close(vector, alone.float(), rtol=1e-5, atol=1e-6)


def test_masks_are_filled_each_by_itself(tokenizer):
    filler = Filler(encoder(config.MaskedLanguage()), tokenizer)
    found = filler.fill(["the [MASK] sat on a [MASK]"], best=3)[0]
    ids = torch.tensor([[2, 5, 4, 7, 8, 9, 4, 3]])
    expected = filler.model(ids).softmax(-1)[0]
    assert len(found) == 2
    for place, options in zip((2, 6), found, strict=True):
        probability, token = expected[place].topk(3)
        assert [option.probability for option in options] == pytest.approx(probability.tolist(), rel=1e-6)
        words = ["" if int(i) < 5 else WORDS[i] for i in token]
        assert [option.token for option in options] == words
    best = next(option for option in found[0] if option.token)
    assert best.text == f"the {best.token} sat on a [MASK]"


def test_what_cannot_be_read_is_named(tokenizer):
    classifier = Classifier(encoder(config.Classification(labels=("x", "y"))), tokenizer)
    with pytest.raises(InputError, match="text 2 is empty"):
        classifier.classify(["a", " "])
    with pytest.raises(InputError, match="text 1 has 22 tokens, but this model's positions end at 12"):
        classifier.classify(["a " * 20])
    with pytest.raises(InputError, match="is one string"):
        classifier.classify("a dog")
    with pytest.raises(InputError, match="head is 'classification'"):
        Embedder(classifier.model, tokenizer)
    with pytest.raises(InputError, match=r"text 1 has no \[MASK\]"):
        Filler(encoder(config.MaskedLanguage()), tokenizer).fill(["the cat"])


@pytest.mark.parametrize("longest", [3, 4, 7, 8])
def test_a_text_is_cut_to_the_length_that_the_head_names(tokenizer, longest):
    """The marks around it stay: [CLS] and as much of the text as there is room for, and [SEP]."""
    embedder = Embedder(encoder(config.SentenceEmbedding(longest=longest)), tokenizer)
    (found,) = embedder.embed(["the cat sat on a mat"])
    words = [5, 6, 7, 8, 9, 10][: longest - 2]
    expected = embedder.model(torch.tensor([[2, *words, 3]]))[0].float()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
