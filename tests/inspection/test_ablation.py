"""Losses and ablation: against the loss written out, and against weights from which the head is taken out."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from inspection.test_heads import examples
from inspection.three_shapes import HEADS, MAKERS, decoder_only, encoder_only
from readers import WORDS, word_tokenizer
from sublayer import config
from sublayer.errors import InputError
from sublayer.inspection.ablation import ablate, runs
from sublayer.inspection.examples import IGNORE, Example, hidden_behind_masks, losses, of_tagged, of_texts, with_labels
from sublayer.inspection.groups import groups
from sublayer.models import EncoderDecoder, EncoderOnly

HIDDEN = 4


def _asked(shape: str) -> list[Example]:
    """The examples of the tests of heads, with something asked of each."""
    found = examples(shape)
    if shape != "encoder-only":
        return found
    return [Example(one.tokens, wanted=(IGNORE, HIDDEN, *[IGNORE] * (len(one.tokens) - 2))) for one in found]


def _plain(model, example: Example) -> float:
    """- sum of log p(wanted), one text alone."""
    tokens = torch.tensor([example.tokens])
    with torch.no_grad():
        logits = model(tokens, None, torch.tensor([example.fed])) if example.fed else model(tokens)
    p = logits[0].softmax(-1)
    return -sum(math.log(p[at, token].item()) for at, token in enumerate(example.wanted) if token != IGNORE)


@pytest.mark.parametrize("shape", list(MAKERS))
def test_the_loss_is_the_likelihood_of_what_is_wanted(shape):
    model, some = MAKERS[shape](), _asked(shape)
    some = [one for one in some if one.targets]
    expected = torch.tensor([_plain(model, one) for one in some], dtype=torch.float64)
    for tokens in (1, 40, 10_000):
        torch.testing.assert_close(losses(model, some, tokens=tokens), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("shape", list(MAKERS))
def test_the_change_is_that_of_a_model_without_the_heads_weights(shape):
    model, some = MAKERS[shape](), [one for one in _asked(shape) if one.targets]
    told: list[int] = []
    found = ablate(model, some, progress=lambda: told.append(1))
    assert len(told) == runs(model) == 1 + len(groups(model)) * 2 * HEADS
    targets = sum(one.targets for one in some)
    whole = sum(_plain(model, one) for one in some) / targets
    assert (found.targets, found.loss) == (targets, pytest.approx(whole, rel=1e-10))
    for one in found.importance:
        for layer, head in ((0, 3), (1, 0)):
            without = copy.deepcopy(model)
            attention = without.get_submodule(one.group.attentions[layer])
            with torch.no_grad():
                attention.output.weight[:, head * attention.width : (head + 1) * attention.width] = 0
            nats = [_plain(without, each) - _plain(model, each) for each in some]
            change = sum(nats) / targets
            assert one.change[layer, head].item() == pytest.approx(change, rel=1e-8, abs=1e-10)
            assert abs(change) > 1e-4
            spread = sum((n - change * each.targets) ** 2 for n, each in zip(nats, some, strict=True))
            error = math.sqrt(spread * len(some) / (len(some) - 1)) / targets
            assert one.error[layer, head].item() == pytest.approx(error, rel=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_error_of_one_passage_is_not_known():
    model, some = decoder_only(layers=1), _asked("decoder-only")
    [importance] = ablate(model, some[:1]).importance
    assert importance.error.isnan().all()


def _reader(head: config.Head) -> EncoderOnly:
    torch.manual_seed(5)
    block = config.Block(attention=config.Attention(heads=2), feed_forward=config.PositionWise(hidden=20))
    tree = config.EncoderOnly(
        dim=16,
        vocab_size=len(WORDS),
        max_length=12,
        embedding=config.Embedding(scale=False, token_types=2),
        encoder=config.Stack(layers=1, block=block, position=config.Learned()),
        head=head,
    )
    made = EncoderOnly(tree).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def test_a_classifiers_loss_is_of_its_labels():
    model, tokenizer = _reader(config.Classification(labels=("neg", "pos"), pooling="mean")), word_tokenizer()
    texts = of_texts(model, tokenizer, ["the cat sat", "a dog on the mat sat"])
    assert texts[0].token_type_ids == (0, 0, 0, 0, 0)
    asked = with_labels(model, texts, ["pos", "neg"])
    with torch.no_grad():
        expected = [
            -model(torch.tensor([one.tokens])).log_softmax(-1)[0, label]
            for one, label in zip(texts, (1, 0), strict=True)
        ]
    torch.testing.assert_close(losses(model, asked), torch.stack(expected), rtol=1e-10, atol=0)
    assert ablate(model, asked).targets == 2
    with pytest.raises(InputError, match=r"no label 'good'.*neg, pos"):
        with_labels(model, texts, ["good", "neg"])
    with pytest.raises(InputError, match="nothing is asked of text 1"):
        losses(model, texts)


def test_a_taggers_loss_is_of_the_first_token_of_each_word():
    model, tokenizer = _reader(config.Tagging(labels=("O", "PER"))), word_tokenizer()
    [one] = of_tagged(model, tokenizer, [(["the", "cat", "sat"], ["O", "PER", "O"])])
    assert one.wanted == (IGNORE, 0, 1, 0, IGNORE)
    with pytest.raises(InputError, match=r"no tag 'LOC'"):
        of_tagged(model, tokenizer, [(["the"], ["LOC"])])


def test_a_masked_models_texts_are_hidden_and_asked_for():
    model, tokenizer = _reader(config.MaskedLanguage()), word_tokenizer()
    [whole] = of_texts(model, tokenizer, ["the cat sat on a mat the dog"])
    [hidden] = hidden_behind_masks([whole], tokenizer, share=0.25)
    places = [at for at, token in enumerate(hidden.wanted) if token != IGNORE]
    assert len(places) == 2
    assert all(hidden.tokens[at] == tokenizer.mask_id and hidden.wanted[at] == whole.tokens[at] for at in places)
    assert [t for at, t in enumerate(hidden.tokens) if at not in places] == [
        t for at, t in enumerate(whole.tokens) if at not in places
    ]
    assert hidden_behind_masks([whole], tokenizer, share=0.25) == [hidden]
    with pytest.raises(InputError, match="'masked-language', which gives a text no label"):
        with_labels(model, [whole], ["pos"])


@pytest.mark.parametrize("head", [config.NoHead(), config.SentenceEmbedding()])
def test_a_head_without_probabilities_has_no_loss(head):
    model = encoder_only(head)
    with pytest.raises(InputError, match=f"'{head.type}' gives no probabilities"):
        ablate(model, [Example((4, 5, 6), wanted=(4, IGNORE, IGNORE))])


def test_what_cannot_be_read():
    model, tokenizer = _reader(config.MaskedLanguage()), word_tokenizer()
    with pytest.raises(InputError, match="text 2 is empty"):
        of_texts(model, tokenizer, ["the", " "])
    with pytest.raises(InputError, match="text 1 has 22 tokens, but this model's positions end at 12"):
        of_texts(model, tokenizer, ["cat " * 20])
    [cut] = of_texts(model, tokenizer, ["cat " * 20], most=99)
    assert (len(cut.tokens), cut.tokens[-1]) == (12, tokenizer.specials.separator)
    with pytest.raises(InputError, match="no text"):
        ablate(model, [])
    assert isinstance(MAKERS["encoder-decoder"](), EncoderDecoder)
