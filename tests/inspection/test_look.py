"""Looking into a model: what a view says, against the model asked by other ways."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inspection.loaded_models import (
    ALL,
    LINES,
    SENTENCE,
    classifier,
    embedder,
    filler,
    generator,
    made,
    tagger,
    tokenizer,
    translator,
)
from readers import word_tokenizer
from sublayer import config
from sublayer.errors import ConfigError, InputError
from sublayer.generation.translator import Translator
from sublayer.inspection import loaded_model
from sublayer.inspection.attention import attention_maps
from sublayer.inspection.examples import Example
from sublayer.inspection.labelling import labelled, spellings
from sublayer.inspection.lens import logit_lens
from sublayer.inspection.loaded_model import describe
from sublayer.inspection.look import look
from sublayer.inspection.view import Map, Question, View, quantised, restored
from sublayer.models import EncoderDecoder
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.text import Tokenizer

NEAR = 1 / 255  # twice the largest error of a weight that travels


def ask(loaded, text=SENTENCE, **over) -> View:
    return look(loaded, Question.parse({"text": text, **over}, "test"))


# --- the weights as they travel ----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_weights_come_back_within_the_bound(weights):
    weights = np.array(weights)
    error = np.abs(restored(quantised(weights)) - weights)
    assert (error <= 0.004 * np.sqrt(weights) + 0.000004).all()


@pytest.mark.parametrize("causal", [False, True])
def test_a_map_travels_as_its_bytes(causal):
    rng = np.random.default_rng(0)
    weights = rng.random((2, 3, 5, 5)) * (np.tri(5) if causal else 1)
    plain = json.loads(json.dumps(Map("decoder", "", "text", "text", causal, quantised(weights)).plain()))
    data = np.frombuffer(zlib.decompress(base64.b64decode(plain["weights"])), np.uint8)
    assert plain["shape"] == [2, 3, 5, 5]
    if causal:
        # Row i of a triangle begins after 1 + 2 + ... + i others.
        triangle = data.reshape(2, 3, 15)
        rows = [
            [triangle[..., i * (i + 1) // 2 + j] if j <= i else 0 * triangle[..., 0] for j in range(5)]
            for i in range(5)
        ]
        back = np.array(rows).transpose(2, 3, 0, 1)
    else:
        back = data.reshape(2, 3, 5, 5)
    assert np.abs(restored(back) - weights).max() < NEAR


@pytest.mark.parametrize("name", ALL)
def test_every_shape_becomes_plain_json(name):
    asked, text = made(name)
    view = look(asked, Question(text=text))
    plain = json.loads(json.dumps(view.plain(), allow_nan=False))
    assert plain["about"]["task"] == name
    assert [one["name"] for one in plain["maps"]] == [one[0] for one in plain["about"]["maps"]]
    for one in plain["maps"]:
        layers, heads, rows, columns = one["shape"]
        assert [layers, heads] == next(about[2:] for about in plain["about"]["maps"] if about[0] == one["name"])
        assert rows == len(plain["sequences"][one["rows"]]["texts"])
        assert columns == len(plain["sequences"][one["columns"]]["texts"])
    for one in view.maps:
        # Every row is a distribution, as far as its bytes can say.
        total = restored(one.weights).sum(-1)
        assert np.abs(total - 1).max() < 0.004 * np.sqrt(one.weights.shape[-1]) + 0.001


# --- a translation -----------------------------------------------------------------------------------------------


def test_a_translation_is_the_translators_own():
    asked = translator()
    view, own = ask(asked), asked.translate([SENTENCE])[0]
    assert [token.id for token in view.sequences["target"][1:]] == own.tokens
    assert view.output.text == own.text
    assert view.output.complete == own.complete
    assert view.output.log_probability == pytest.approx(own.log_probability, rel=1e-6)


def test_the_maps_of_a_translation():
    asked = translator()
    view = ask(asked, target=" The old man.")
    [source] = asked.encode([SENTENCE])
    [target] = tokenizer().encode([" The old man."])
    own = attention_maps(asked.model, source, target, start_id=tokenizer().start_id, end_id=tokenizer().end_id)
    for one in view.maps:
        assert np.abs(restored(one.weights) - getattr(own, one.name).numpy()).max() < NEAR
    assert [token.id for token in view.sequences["predicted"]] == own.predicted_ids


def test_candidates_are_the_models_probabilities():
    asked = translator()
    view = ask(asked, target=" The old man.")
    source = torch.tensor(asked.encode([SENTENCE]))
    fed = torch.tensor([[token.id for token in view.sequences["target"]]])
    chances = asked.model(source, None, fed)[0].softmax(-1)
    wanted = [*fed[0, 1:].tolist(), tokenizer().end_id]
    assert view.output.log_probability == pytest.approx(
        sum(chances[at, token].log().item() for at, token in enumerate(wanted)), rel=1e-5
    )
    for at, token in enumerate(wanted):
        one = view.predictions[at]
        order = chances[at].argsort(descending=True).tolist()
        assert [candidate.id for candidate in one.candidates] == order[:8]
        assert [candidate.probability for candidate in one.candidates] == pytest.approx(
            [chances[at, i].item() for i in order[:8]], rel=1e-5
        )
        assert (one.chosen.id, one.rank) == (token, order.index(token))
        assert one.chosen.probability == pytest.approx(chances[at, token].item(), rel=1e-5)


def test_a_chosen_token_is_gone_on_from_greedily():
    asked = translator(beam=1)
    whole = ask(asked)
    own = [token.id for token in whole.sequences["target"][1:]]
    # Its own beginning, chosen, changes nothing; another one is kept.
    assert [token.id for token in ask(asked, forced=own[:2]).sequences["target"][1:]][:4] == own[:4]
    other = whole.predictions[1].candidates[3].id
    changed = [token.id for token in ask(asked, forced=[own[0], other]).sequences["target"]]
    assert changed[1:3] == [own[0], other]
    fed = torch.tensor([changed])
    source = torch.tensor(asked.encode([SENTENCE]))
    said = asked.model(source, None, fed)[0].argmax(-1).tolist()
    assert changed[3:] == said[2 : len(changed) - 1]


def test_an_end_that_is_chosen_ends_the_translation():
    view = ask(translator(), forced=[7, tokenizer().end_id])
    assert [token.id for token in view.sequences["predicted"]] == [7, tokenizer().end_id]
    assert view.output.complete


# --- heads that are off ------------------------------------------------------------------------------------------


def blinded(module: SelfAttention | CrossAttention, head: int) -> None:
    """The head's columns of the output map at 0: nothing that it finds arrives."""
    with torch.no_grad():
        module.output.weight[:, head * module.width : (head + 1) * module.width] = 0


@pytest.mark.parametrize(("name", "layer", "head"), [("encoder", 2, 1), ("decoder", 0, 3), ("cross", 1, 0)])
def test_a_head_that_is_off_is_as_one_that_writes_nothing(name, layer, head):
    off = ask(translator(), target=" The old man.", silenced=[{"map": name, "layer": layer, "head": head}])
    other = translator()
    block = getattr(other.model, "decoder" if name == "cross" else name).layers[layer]
    blinded(block.cross_attention if name == "cross" else block.self_attention, head)
    expected = ask(other, target=" The old man.")
    assert off.output.log_probability == pytest.approx(expected.output.log_probability, rel=1e-9)
    assert off.output.log_probability != pytest.approx(
        ask(translator(), target=" The old man.").output.log_probability, rel=1e-5
    )
    for one, wanted in zip(off.maps, expected.maps, strict=True):
        assert np.array_equal(one.weights, wanted.weights)


def test_what_is_off_is_off_while_the_model_writes():
    heads = [{"map": "decoder", "layer": 1, "head": head} for head in range(4)]
    off = ask(generator(), tokens=12, silenced=heads)
    other = generator()
    for head in range(4):
        blinded(other.model.decoder.layers[1].self_attention, head)
    [expected] = other.generate([SENTENCE], search=config.Greedy(), max_tokens=12)
    assert [token.id for token in off.sequences["text"][off.made :]] == expected.tokens
    assert off.output.text != ask(generator(), tokens=12).output.text


def test_a_vector_says_how_far_it_has_moved():
    asked = embedder()
    whole, off = (ask(asked, "the cat sat", silenced=s) for s in ([], [{"map": "encoder", "layer": 0, "head": 1}]))
    assert whole.output.likeness == 1.0
    assert np.allclose(whole.output.values, asked.embed(["the cat sat"])[0], rtol=1e-5)
    cosine = np.dot(whole.output.values, off.output.values) / np.linalg.norm(off.output.values)
    assert off.output.likeness == pytest.approx(cosine / np.linalg.norm(whole.output.values), rel=1e-5)
    assert off.output.likeness < 0.999


# --- going on from a prompt, and reading -------------------------------------------------------------------------


def test_a_text_goes_on_as_the_generator_does():
    asked = generator()
    view = ask(asked, tokens=9)
    [own] = asked.generate([SENTENCE], search=config.Greedy(), max_tokens=9, log_probabilities=True)
    assert [token.id for token in view.sequences["text"][: view.made]] == own.prompt_tokens
    assert [token.id for token in view.sequences["text"][view.made :]] == own.tokens
    assert view.output.text == own.text
    assert view.output.log_probability == pytest.approx(own.best.log_probability, rel=1e-6)
    # One more than has been made: what may come next.
    assert view.predictions[-1].chosen is None
    longer = ask(asked, tokens=1, forced=own.tokens)
    assert longer.sequences["text"][-1].id == view.predictions[-1].candidates[0].id


def test_a_conversation():
    asked = generator()
    view = ask(asked, tokens=2, chat=True)
    assert [token.id for token in view.sequences["text"][: view.made]] == asked.encode_chat(
        [{"role": "user", "content": SENTENCE}]
    )


def test_what_readers_say():
    text = "the cat sat on a mat"
    view = ask(classifier(), text)
    own = classifier().classify([text])[0].probabilities
    assert [label for label, _ in view.output.labels] == list(own)
    assert [chance for _, chance in view.output.labels] == pytest.approx(list(own.values()), rel=1e-6)
    assert [tag for tag, _ in ask(tagger(), text).output.tags][1:-1] == tagger().tag([text])[0].tags
    view = ask(filler(), "the [MASK] sat on a [MASK]")
    assert view.output.masks == (2, 6)
    for place, found in zip(view.output.masks, filler().fill(["the [MASK] sat on a [MASK]"], best=5)[0], strict=True):
        assert [one.probability for one in view.predictions[place].candidates[:5]] == pytest.approx(
            [one.probability for one in found], rel=1e-6
        )


@pytest.mark.parametrize("name", ["translate", "generate", "fill", "tag", "classify"])
def test_the_lens_is_the_logit_lens(name):
    asked, text = made(name)
    view = look(asked, Question(text=text))
    if name == "translate":
        source, fed = view.sequences["source"], view.sequences["target"]
        example = Example(tuple(token.id for token in source), fed=tuple(token.id for token in fed))
    else:
        ids = tuple(token.id for token in view.sequences["text"])
        example = Example(ids, (0,) * len(ids) if name in ("fill", "tag", "classify") else ())
    own = logit_lens(asked.model, example)
    assert list(view.lens.layers) == own.names
    for layer, row in enumerate(view.lens.cells):
        for place, cell in enumerate(row):
            chance, token = own.probabilities[layer, view.lens.first + place].topk(len(cell))
            assert [one.id for one in cell] == token.tolist()
            assert [one.probability for one in cell] == pytest.approx(chance.tolist(), rel=1e-5)


def test_the_lens_begins_where_it_is_asked_to():
    view, later = ask(generator(), tokens=0), ask(generator(), tokens=0, lens_from=4)
    assert (view.lens.first, later.lens.first) == (0, 4)
    assert later.lens.cells[2][0] == view.lens.cells[2][4]


# --- words -------------------------------------------------------------------------------------------------------


def test_tokens_as_a_reader_sees_them():
    ids = [tokenizer().start_id, *tokenizer().encode(["The keys?"])[0]]
    shown = labelled(tokenizer(), ids)
    assert [token.kind for token in shown] == ["special", *["text"] * (len(ids) - 1)]
    assert "".join(("" if token.glued else " ") + token.text for token in shown[1:]) == " The keys?"


def test_what_the_vocabulary_lacks_is_shown_as_it_was_typed():
    view = ask(embedder(), "the 猫 sat")
    assert [(token.text, token.kind) for token in view.sequences["text"]] == [
        ("[CLS]", "special"), ("the", "text"), ("猫", "unknown"), ("sat", "text"), ("[SEP]", "special"),
    ]  # fmt: skip


def test_what_the_vocabulary_lacks_of_a_given_translation_is_shown_too():
    words = Tokenizer.train(LINES * 4, config.Words(vocab_size=60))
    tree = translator().model.config.model_copy(update={"vocab_size": words.vocab_size})
    loaded = Translator(EncoderDecoder(tree).double().eval(), words, config.Decoding())
    view = ask(loaded, "Where are my 犬", target="The 猫 keys")
    for side, typed in (("source", "犬"), ("target", "猫"), ("predicted", "猫")):
        assert [token.text for token in view.sequences[side] if token.kind == "unknown"] == [typed], side


def test_spellings_without_a_text_around():
    spelled = spellings(tokenizer())
    [inside] = [i for i in range(300) if tokenizer().pieces([i]) == ["e"]]
    assert spelled(inside) == "·e"
    assert spelled(tokenizer().end_id) == "</s>"
    assert spelled(10_000) == "[10000]"
    assert spellings(word_tokenizer())(6) == "cat"


# --- what cannot be asked ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "question", "message"),
    [
        ("translate", {"text": " \n"}, "there is no text"),
        ("generate", {"text": ""}, "there is no text"),
        ("translate", {"text": "keys " * 60}, "positions end at 48"),
        ("generate", {"text": "keys " * 400}, "320 is the most"),
        ("embed", {"text": "cat " * 30}, "12 is the most"),
        ("generate", {"text": "a", "target": "b"}, "no translation"),
        ("embed", {"text": "a", "forced": [1]}, "does not write"),
        ("translate", {"text": "a", "target": "b", "forced": [1]}, "Give one of them"),
        ("generate", {"text": "a", "forced": [100_000]}, "vocabulary is 0 to"),
        ("generate", {"text": "a", "silenced": [{"map": "decoder", "layer": 3, "head": 0}]}, "no head 0 in layer 3"),
        ("generate", {"text": "a", "silenced": [{"map": "cross", "layer": 0, "head": 0}]}, "of 'cross'"),
    ],
)
def test_questions_that_do_not_fit(name, question, message):
    asked, _ = made(name)
    before = sum(len(module._forward_hooks) for module in asked.model.modules())
    with pytest.raises(InputError, match=message):
        look(asked, Question.parse(question, "test"))
    assert sum(len(module._forward_hooks) for module in asked.model.modules()) == before


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "text"),
        ({"text": "a", "tokns": 3}, "tokens"),
        ({"text": "a" * 20_001}, "text"),
        ({"text": "a", "tokens": -1}, "tokens"),
        ({"text": 3}, "text"),
        ({"text": "a", "silenced": [{"map": "no", "layer": 0, "head": 0}]}, "map"),
    ],
)
def test_questions_that_are_none(question, message):
    with pytest.raises(ConfigError, match=message):
        Question.parse(question, "the question")


def test_the_longest_text_is_bounded_by_the_weights_it_would_show(monkeypatch):
    assert describe(generator()).longest == 320
    # Three layers of four heads.
    monkeypatch.setattr(loaded_model, "MOST_WEIGHTS", 12 * 25**2 + 1)
    assert describe(generator()).longest == 25
    with pytest.raises(InputError, match="25 is the most"):
        ask(generator(), "keys of the old house " * 5)


def test_the_model_is_left_as_it_was():
    asked = translator()
    asked.model.train()
    ask(asked, silenced=[{"map": "cross", "layer": 0, "head": 0}])
    assert asked.model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in asked.model.modules())


def test_somebody_may_give_up():
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt

    asked = generator()
    with pytest.raises(KeyboardInterrupt):
        look(asked, Question(text=SENTENCE), check=check)
    assert calls == 4
    assert not any(module._forward_pre_hooks for module in asked.model.modules())
