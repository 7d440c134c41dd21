"""What encoders are used for, against the model asked by hand."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from sublayer import config
from sublayer.errors import InputError
from sublayer.models import EncoderOnly
from sublayer.tasks import Classifier, Embedder, Filler, Tagger
from sublayer.text import Tokenizer
from sublayer.text.specials import Specials

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "a", "mat", "dog"]
TEXTS = ["the cat sat", "a dog", "the cat sat on a mat", "mat"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(WORDS[:5])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return Tokenizer(backend, Specials(pad=0, unknown=1, class_=2, separator=3, mask=4))


def model(head: config.Head) -> EncoderOnly:
    torch.manual_seed(3)
    block = config.Block(attention=config.Attention(heads=2), feed_forward=config.PositionWise(hidden=20))
    tree = config.EncoderOnly(
        dim=16,
        vocab_size=len(WORDS),
        max_length=12,
        embedding=config.Embedding(scale=False, types=2, norm=config.LayerNorm()),
        encoder=config.Stack(layers=2, block=block, position=config.Learned()),
        head=head,
    )
    made = EncoderOnly(tree).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def test_texts_are_classified_in_order_as_one_by_one(tokenizer):
    classifier = Classifier(model(config.Classification(labels=("x", "y", "z"), pooling="mean")), tokenizer)
    done: list[int] = []
    found = classifier.classify(TEXTS, batch_tokens=16, progress=done.append)
    assert sum(done) == len(TEXTS)
    for text, one in zip(TEXTS, found, strict=True):
        ids = torch.tensor(tokenizer.encode_marked([text]))
        expected = classifier.model(ids).softmax(-1)[0]
        assert one.text == text
        assert one.label == "xyz"[int(expected.argmax())]
        for label, probability in zip("xyz", expected.tolist(), strict=True):
            assert one.probabilities[label] == pytest.approx(probability, rel=1e-6)


def test_pairs_are_told_apart_by_their_kind(tokenizer):
    classifier = Classifier(model(config.Classification(labels=("x", "y"))), tokenizer)
    found = classifier.classify([("a dog", "the cat")])[0]
    ids = torch.tensor([[2, 9, 11, 3, 5, 6, 3]])
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    expected = classifier.model(ids, None, types).softmax(-1)[0]
    assert found.probabilities["x"] == pytest.approx(expected[0].item(), rel=1e-6)
    assert found.probabilities["x"] != pytest.approx(classifier.model(ids).softmax(-1)[0, 0].item(), rel=1e-3)


def test_a_word_has_the_tag_of_its_first_token(tokenizer):
    tagger = Tagger(model(config.Tagging(labels=("B", "I", "O"))), tokenizer)
    found = tagger.tag(["the cat sat", ["a", "dog"]])
    for words, one in zip((["the", "cat", "sat"], ["a", "dog"]), found, strict=True):
        ids = torch.tensor(tokenizer.encode_marked([" ".join(words)]))
        expected = tagger.model(ids)[0, 1:-1].argmax(-1)
        assert one.words == words
        assert one.tags == ["BIO"[i] for i in expected]


def test_vectors_come_in_order_and_have_length_one(tokenizer):
    embedder = Embedder(model(config.SentenceEmbedding()), tokenizer)
    found = embedder.embed(TEXTS, batch_tokens=16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(TEXTS)))
    for text, vector in zip(TEXTS, found, strict=True):
        alone = embedder.model(torch.tensor(tokenizer.encode_marked([text])))[0]
        torch.testing.assert_close(vector, alone.float(), rtol=1e-5, atol=1e-6)


def test_masks_are_filled_each_by_itself(tokenizer):
    filler = Filler(model(config.MaskedLanguage()), tokenizer)
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
    classifier = Classifier(model(config.Classification(labels=("x", "y"))), tokenizer)
    with pytest.raises(InputError, match="text 2 is empty"):
        classifier.classify(["a", " "])
    with pytest.raises(InputError, match="text 1 has 22 tokens, but this model's positions end at 12"):
        classifier.classify(["a " * 20])
    with pytest.raises(InputError, match="is one string"):
        classifier.classify("a dog")
    with pytest.raises(InputError, match="head is 'classification'"):
        Embedder(classifier.model, tokenizer)
    with pytest.raises(InputError, match=r"text 1 has no \[MASK\]"):
        Filler(model(config.MaskedLanguage()), tokenizer).fill(["the cat"])


@pytest.mark.parametrize("longest", [3, 4, 7, 8])
def test_a_text_is_cut_to_the_length_that_the_head_names(tokenizer, longest):
    """The marks around it stay: [CLS] and as much of the text as there is room for, and [SEP]."""
    embedder = Embedder(model(config.SentenceEmbedding(longest=longest)), tokenizer)
    (found,) = embedder.embed(["the cat sat on a mat"])
    words = [5, 6, 7, 8, 9, 10][: longest - 2]
    expected = embedder.model(torch.tensor([[2, *words, 3]]))[0].float()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
