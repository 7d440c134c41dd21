"""What others wrote, read within limits: JSON, other libraries' settings, paths; and what is written to a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sublayer import config
from sublayer.cli.terminal import console, one_line
from sublayer.config.load import find_recipe, load_recipe, read_toml
from sublayer.config.override import read_override
from sublayer.data.jsonl import read_objects
from sublayer.errors import CheckpointError, ConfigError, DataError, InputError, SublayerError
from sublayer.files import write_json
from sublayer.hub.families import FAMILIES
from sublayer.hub.folder import find, read
from sublayer.hub.importing import import_folder, read_tree
from sublayer.hub.resolving import resolve
from sublayer.text.folder import load_folder
from sublayer.text.vocabularies import read_vocab_json
from sublayer.training import checkpoint
from sublayer.untrusted import DEEPEST, UntrustedError, library_errors, parse_json, printable, to_json

DEEP = "[" * 100_000
HOSTILE = {
    "deep": DEEP,
    "deep and whole": "[" * (DEEPEST + 2) + "]" * (DEEPEST + 2),
    "objects": '{"a":' * 3000 + "1" + "}" * 3000,
    "digits": '{"vocab_size": ' + "9" * 5000 + "}",
    "nan": '{"layer_norm_eps": NaN}',
    "infinity": '{"layer_norm_eps": -Infinity}',
    "overflow": '{"layer_norm_eps": 1e999}',
    "twice": '{"model_type": "llama", "model_type": "gpt2"}',
    "half": '{"model_type": "\\ud800"}',
    "half key": '{"\\udfff": 1}',
    "half inside": '[[{"a": ["\\udc00"]}]]',
    "no json": "{",
    "latin": b'{"model_type": "caf\xe9"}',
    "nothing": b"",
}


def written(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused(name: str) -> None:
    with pytest.raises(UntrustedError):
        parse_json(written(HOSTILE[name]))


@pytest.mark.parametrize("value", [{}, [], 0, -(2**63), 10**30, 1.5, None, True, "é\U0001f600", {"a": [{"b": [1]}]}])
def test_what_json_can_say_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_a_pair_of_surrogates_is_one_sign() -> None:
    assert parse_json('"\\ud83d\\ude00"') == "\U0001f600"


def test_what_is_nested_as_deep_as_allowed_is_read() -> None:
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(text)) == text


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as handle:
        handle.truncate(2**40)  # without a block on the disk
    with pytest.raises(CheckpointError, match="over 64 MiB"):
        read_vocab_json(path)


READERS = {
    "checkpoint": lambda folder: import_folder(folder),
    "own folder": lambda folder: read(folder),
    "vocabulary": lambda folder: read_vocab_json(folder / "config.json"),
    "state": lambda folder: checkpoint.read(folder),
    "tokenizer": lambda folder: load_folder(folder),
    "rows": lambda folder: list(read_objects(folder / "config.json")),
    "start": lambda folder: load_recipe(str(folder / "recipe.toml")),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_json_refuses_it_in_a_line(tmp_path: Path, reader: str, name: str) -> None:
    for file in ("config.json", "state.json", "tokenizer_config.json", "tokenizer.json", "vocab.json"):
        (tmp_path / file).write_bytes(written(HOSTILE[name]))
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / "recipe.toml").write_text(f'name = "a"\nstart = {{path = "{tmp_path}"}}\n')
    if reader == "rows" and name == "nothing":
        return  # no rows
    with pytest.raises(SublayerError):
        READERS[reader](tmp_path)


@pytest.mark.parametrize("value", [DEEP, "9" * 5000, "{a=" * 3000])
def test_a_hostile_override_is_refused(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_override(f"model.dim={value}")
    assert len(str(caught.value)) < 400 or value in str(caught.value)


def test_a_hostile_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    for text in ("a = " + "9" * 5000, "a = " + DEEP, "a = " + "{a=" * 3000):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_toml(path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "~nosuchuser/model", "/dev/null/x"])
def test_a_name_that_can_be_no_path_names_nothing(name: str) -> None:
    for look in (find_recipe, resolve, lambda what: find(Path(what))):
        with pytest.raises(SublayerError):
            look(name)


class PanicException(BaseException):
    """As pyo3 calls it."""


def test_a_librarys_panic_is_an_error_of_ours_and_an_interrupt_is_not() -> None:
    for raised in (PanicException("index out of bounds"), RuntimeError("a\nb"), MemoryError()):
        with pytest.raises(CheckpointError, match=r"^it is damaged \("), library_errors("it is damaged"):
            raise raised
    with pytest.raises(KeyboardInterrupt), library_errors("it is damaged"):
        raise KeyboardInterrupt


# --- the command line --------------------------------------------------------------------------------------------


def command(*arguments: str, prelude: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"from sublayer.cli import main as cli\n{prelude}\ncli.main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def test_what_nobody_thought_of_is_one_line_that_says_where_to_report_it() -> None:
    fault = "def fault(*_): raise TypeError('a\\x1b[2J\\nb')\ncli.app_of = lambda _: fault"
    done = command(prelude=fault)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "sublayer: this is a fault in sublayer (TypeError: a\\x1b[2J). Please report it where you got sublayer from,"
        " with the command; SUBLAYER_TRACEBACK=1 before it shows where it happened."
    ]
    assert "Traceback" in command(prelude=fault, SUBLAYER_TRACEBACK="1").stderr


def test_a_text_without_a_model_is_said_to_be_one() -> None:
    done = command("translate", "A long text. " * 40)
    assert done.returncode == 2
    assert done.stderr.startswith("sublayer: there is no folder 'A long text.")
    assert "A model's folder goes before the text" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("sign", ["\x1b[31m", "\x07", "\x9b2J", "\r", "\u202e", "\x7f", "\b"])
def test_no_control_character_reaches_the_terminal(sign: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(f"a{sign}b\n\tc").startswith("a\\")
    assert printable(f"a{sign}b\n\tc").endswith("b\n\tc")
    assert "\x1b" not in one_line(sign)
    assert "\n" not in one_line(f"a{sign}\nb")
    console(width=40).print(f"x{sign}y", markup=False)
    assert sign not in capsys.readouterr().out.rstrip("\n")


def test_a_key_of_a_config_cannot_move_the_cursor(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "\x1b[2Jkey": 1}))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    done = command("pull", str(tmp_path), str(tmp_path / "out"))
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "\\x1b[2Jkey" in done.stderr


# --- settings of other libraries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("gemma2", "sliding_window", "{{7*7}}"),
        ("modernbert", "rope_parameters", "AAAA"),
        ("llama", "attention_bias", "no"),
        ("llama", "rms_norm_eps", True),
        ("llama", "rms_norm_eps", 1e308),
        ("bert", "layer_norm_eps", "1"),
        ("bert", "layer_norm_eps", 1e308),
        ("llama", "hidden_size", 4096.0),
        ("llama", "vocab_size", 2**31),
        ("llama", "num_hidden_layers", 10**6),
        ("llama", "max_position_embeddings", 10**9),
        ("llama", "tie_word_embeddings", 1),
        ("llama", "rope_theta", "10000"),
        ("llama", "rope_scaling", [1]),
        ("qwen3_moe", "num_experts", 10**6),
        ("t5", "num_heads", True),
        ("marian", "scale_embedding", "true"),
        ("gemma3_text", "query_pre_attn_scalar", 0),
        ("llama", "architectures", "LlamaForCausalLM"),
        ("llama", "head_dim", -1),
    ],
)
def test_a_setting_of_another_type_is_refused_by_name(kind: str, key: str, value: Any) -> None:
    family = next(family for family in FAMILIES if family.name == kind)
    with pytest.raises(CheckpointError) as caught:
        read_tree(family, {"model_type": kind, key: value})
    assert key in str(caught.value) or "eps" in str(caught.value)


def test_every_setting_that_is_read_has_a_type() -> None:
    """A key without one is a mistake of ours, which no file can make."""
    from sublayer.hub.family import Settings

    with pytest.raises(AssertionError, match="of which type new_key is"):
        Settings({"new_key": 1}, "llama").get("new_key")
    for family in FAMILIES:
        read_tree(family, {"model_type": family.name})


def test_a_copy_is_validated() -> None:
    attention = config.Attention(heads=4)
    assert attention.model_copy(update={"window": 3}) == config.Attention(heads=4, window=3)
    assert attention.model_copy() == attention
    for wrong in ({"window": "{{7*7}}"}, {"heads": 0}, {"kv_heads": 3}, {"dropout": True}):
        with pytest.raises(ValueError):
            attention.model_copy(update=wrong)
    with pytest.raises(AssertionError):
        attention.model_copy(update={"hedas": 2})


# --- what is written ---------------------------------------------------------------------------------------------


def test_json_never_holds_what_is_not_finite(tmp_path: Path) -> None:
    assert json.loads(to_json({"a": [1.5, None]})) == {"a": [1.5, None]}
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"scores\.1\.a = "):
            to_json({"scores": [1.0, {"a": value}]})
        with pytest.raises(InputError):
            write_json(tmp_path / "a.json", {"a": value})
    assert not (tmp_path / "a.json").exists()


def test_rows_say_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": NaN}\n')
    with pytest.raises(DataError, match="line 2: it has NaN"):
        list(read_objects(path))
