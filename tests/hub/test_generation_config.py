"""generation_config.json: every setting is kept, has no effect, or is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GenerationConfig

from checkpoints import llama_tree, tiny_tokenizer
from small_run import tree
from sublayer import config
from sublayer.errors import CheckpointError, ConfigError
from sublayer.hub.generation_config import KEPT, OFF, TOKENS, WITHOUT_EFFECT, read, write

PAIRS = tree(304)
CAUSAL = llama_tree(304)
OWN = tiny_tokenizer()
# Of the real Helsinki-NLP/opus-mt-en-es, with this vocabulary's numbers.
OPUS_MT = {
    "bad_words_ids": [[9]],
    "bos_token_id": 2,
    "decoder_start_token_id": 9,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "max_length": 512,
    "num_beams": 4,
    "pad_token_id": 9,
    "renormalize_logits": True,
    "transformers_version": "4.30.0",
}


def found(**said: Any) -> dict[str, Any]:
    return read(PAIRS, {}, {"decoder_start_token_id": 1, "eos_token_id": 2, **said}, OWN)


def test_every_setting_of_the_library_is_accounted_for() -> None:
    known = KEPT.keys() | TOKENS | OFF.keys() | WITHOUT_EFFECT
    assert set(vars(GenerationConfig())) <= known
    defaults = GenerationConfig._get_default_generation_params()
    assert {key: KEPT[key] for key in KEPT if key in defaults} == {
        key: None if key == "max_length" else defaults[key] for key in KEPT if key in defaults
    }
    for key, off in OFF.items():
        assert defaults.get(key) in (None, *off)


def test_what_the_library_leaves_off_is_no_reason_to_refuse() -> None:
    assert found(**GenerationConfig._get_default_generation_params() | {"max_length": 20})["beam"] == 1


@pytest.mark.parametrize("key", OFF)
def test_what_sublayer_does_not_have_is_refused_by_name(key: str) -> None:
    with pytest.raises(CheckpointError, match=rf"generates with {key} = "):
        found(**{key: 7})
    with pytest.raises(CheckpointError, match=rf"generates with {key} = "):
        read(PAIRS, {"decoder_start_token_id": 1, "eos_token_id": 2, key: 7}, {}, OWN)


def test_what_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"does not know: new_search = 'fine'"):
        found(new_search="fine")


@pytest.mark.parametrize(("key", "value"), [("do_sample", True), ("stop_strings", ["x"])])
def test_what_a_translator_does_not_do_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"{key} = "):
        found(**{key: value})


def test_marians_own_are_kept() -> None:
    ours = config.Decoding.parse(read(PAIRS, {}, OPUS_MT, OWN), "test")
    assert ours == config.Decoding(
        beam=4,
        early_stopping=False,
        max_tokens=24,  # the model's positions
        max_extra=24,
        forced_end=2,
        constraints=config.Constraints(banned=(9,), renormalize=True),
        start=9,
    )


@pytest.mark.parametrize("penalty", [0.0, -1.0, 0.6, 2])
def test_any_length_penalty_is_kept(penalty: float) -> None:
    assert found(length_penalty=penalty)["length_penalty"] == penalty
    searched = read(CAUSAL, {}, {"num_beams": 2, "length_penalty": penalty}, OWN)["search"]
    assert searched["length_penalty"] == penalty


@pytest.mark.parametrize("penalty", [1e308, -33, "long", True])
def test_a_length_penalty_that_cannot_be_is_named(penalty: Any) -> None:
    with pytest.raises(ConfigError, match=r"generation_config\.json: length_penalty"):
        found(length_penalty=penalty)


def test_an_older_checkpoint_says_it_in_its_config() -> None:
    settings = {"num_beams": 5, "no_repeat_ngram_size": 3, "length_penalty": 0.8, "early_stopping": True}
    ours = read(PAIRS, {"decoder_start_token_id": 1, "eos_token_id": 2, **settings}, {}, OWN)
    assert (ours["beam"], ours["length_penalty"], ours["early_stopping"]) == (5, 0.8, True)
    assert ours["constraints"]["no_repeat_ngram"] == 3
    # Where there is a generation_config.json, it alone counts.
    assert read(PAIRS, settings, {"decoder_start_token_id": 1, "eos_token_id": 2}, OWN)["beam"] == 1


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ({"max_new_tokens": 9}, {"max_tokens": 9}),
        ({"max_length": 30}, {"max_tokens": None, "max_length": 30}),
        ({"max_length": 4096}, {"max_tokens": None, "max_length": None}),
        ({"max_length": 30, "max_new_tokens": 9}, {"max_tokens": 9, "max_length": None}),
        ({"stop_strings": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_strings": "a"}, {"stop": ["a"]}),
        (
            {"do_sample": True},
            {"search": config.Sampling(top_k=50).plain()},
        ),
        (
            {"do_sample": True, "top_k": 0, "min_p": 0.1},
            {"search": config.Sampling(min_p=0.1).plain()},
        ),
        ({"temperature": 0.5}, {"search": {"type": "greedy"}}),
    ],
)
def test_how_a_language_model_goes_on_is_kept(said: dict[str, Any], ours: dict[str, Any]) -> None:
    plain = read(CAUSAL, {}, {"eos_token_id": 2, **said}, OWN)
    assert {key: plain[key] for key in ours} == ours
    # A limit beyond the context is the context.
    beyond = plain["max_tokens"] is not None and plain["max_tokens"] >= CAUSAL.max_length
    expected = plain | ({"max_tokens": None} if beyond else {})
    assert read(CAUSAL, {}, write(CAUSAL, plain, OWN), OWN) == expected


@pytest.mark.parametrize("said", [{"min_length": 5}, {"do_sample": True, "num_beams": 2}])
def test_what_a_language_model_does_not_do_is_refused_by_name(said: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(reversed(said))):
        read(CAUSAL, {}, {"eos_token_id": 2, **said}, OWN)
