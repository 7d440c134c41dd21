"""A process that reads what has become of files, and tells what it has read of them.

Run as a program: a line on standard input names a reader and a folder, a line on standard output
says what came of it. Its memory is limited, so that a reader that believes a size dies here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MEMORY = 2 * 1024**3
"""Bytes that a reader may take beside what the process has when it begins."""
TEXTS = ["the cat sat", "", " two  spaces\n", "El niño \U0001f600 <s> ▁", "x" * 50]


# --- readers: what is accepted does what it says -----------------------------------------------------------------

Seen = dict[str, str]
"""What was read, in parts that can be compared: whatever a file says must be among them."""


def _digest(value: Any) -> str:
    """Short, and the same for what is the same: of a tensor its bytes, of all else its JSON without an order."""
    import torch

    if isinstance(value, torch.Tensor):
        held = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        held += repr((value.dtype, value.shape)).encode()
    else:
        held = json.dumps(value, sort_keys=True, default=repr).encode("utf-8", "surrogatepass")
    return hashlib.sha256(held).hexdigest()[:16]


def _require_said(asked: Any, made: Any, where: str = "") -> None:
    """Every value of `asked` stands in `made` too, at the same place; keys that only one has are not looked at."""
    if isinstance(asked, dict) and isinstance(made, dict):
        for key in asked.keys() & made.keys():
            _require_said(asked[key], made[key], f"{where}.{key}")
    elif isinstance(asked, int | float | str) and isinstance(made, int | float | str):
        assert asked == made, f"{where[1:]}: {asked!r} was read as {made!r}"


WITHOUT_EFFECT: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "max_window_layers": lambda settings: not settings.get("use_sliding_window"),
    "original_max_position_embeddings": lambda settings: not settings.get("rope_scaling"),
    # What stands for each kind of layer has the last word, there too.
    "global_rope_theta": lambda settings: "rope_parameters" in settings,
    "local_rope_theta": lambda settings: "rope_parameters" in settings,
    "num_kv_heads": lambda settings: bool(settings.get("multi_query")) and not settings.get("new_decoder_architecture"),
    # No module of these families looks at it: their projections have no bias.
    "attention_bias": lambda settings: settings["model_type"] in ("mistral", "mixtral", "phi3"),
    "use_sliding_window": lambda settings: "layer_types" in settings or settings.get("sliding_window", 0) is None,
    # Half of it is what is used, rounded down.
    "local_attention": lambda settings: settings.get("local_attention", 0) % 2 == 1,
    # Of the layers that are no mixtures, where there are none.
    "intermediate_size": lambda settings: "moe" in settings["model_type"],
    # Both say which layers are no mixtures; a list of them is written.
    "decoder_sparse_step": lambda settings: settings.get("decoder_sparse_step", 1) != 1,
    "mlp_only_layers": lambda settings: settings.get("decoder_sparse_step", 1) != 1,
    # The old and the new spelling of a model in which each head has its own keys.
    "multi_query": lambda settings: not settings.get("new_decoder_architecture"),
    "new_decoder_architecture": lambda settings: not settings.get("multi_query"),
}
"""Settings that say nothing of the model in some files, as the library that they are of has it, and in which."""


def _config(folder: Path) -> Seen:
    from sublayer.hub.importing import find_family, read_tree
    from sublayer.untrusted import read_object

    settings = read_object(folder / "config.json")
    family = find_family(settings, "config.json")
    tree = read_tree(family, settings)
    assert type(tree).parse(tree.plain(), "config.json") == tree
    written = family.write(tree)
    assert written is not None
    silent = {name for name, holds in WITHOUT_EFFECT.items() if holds(settings)}
    _require_said({name: value for name, value in settings.items() if name not in silent}, written)
    # A tree may leave out what follows from the rest, so that the files are compared.
    assert family.write(read_tree(family, written)) == written
    return {"tree": _digest(tree.plain())}


def _tokenizer(folder: Path) -> Seen:
    from sublayer.text import Tokenizer
    from sublayer.text.folder import load_folder

    made = load_folder(folder)
    ids = made.encode(TEXTS)
    assert all(number >= 0 for row in ids for number in row)
    aside = folder / "again"
    aside.mkdir(exist_ok=True)
    made.save(aside / "tokenizer.json")
    assert Tokenizer.load(aside / "tokenizer.json").encode(TEXTS) == ids
    return {"ids": _digest(ids), "specials": _digest(repr(made.specials))}


def _contents(found: Any) -> Seen:
    """What a model folder holds; every weight is finite, and so is what the model says of a text."""
    import torch

    from sublayer.models import EncoderDecoder

    model, ids = found.model, torch.tensor([[1, 2]])
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    read = (ids, None, ids) if isinstance(model, EncoderDecoder) else (ids,)
    with torch.no_grad():
        answer = model.hidden(*read) if hasattr(model, "hidden") else None
    assert answer is None or answer.shape[:2] == (1, 2)
    weights = {f"weights.{name}": _digest(tensor) for name, tensor in model.state_dict().items()}
    ids = found.tokenizer.encode(TEXTS)
    told = {
        "tree": model.config.plain(),
        "decoding": dict(found.decoding),
        "imported": dict(found.imported),
        "ids": ids,
    }
    return weights | {name: _digest(value) for name, value in told.items()}


def _checkpoint(folder: Path) -> Seen:
    from sublayer.hub.pulling import read_elsewhere

    found = read_elsewhere(folder)
    told = json.loads((folder / "generation_config.json").read_bytes())
    search = dict(found.decoding).get("search", {})
    if search.get("type") == "sampling":
        _require_said(told, search)
    return _contents(found)


def _gguf(folder: Path) -> Seen:
    from sublayer.hub.pulling import read_elsewhere

    return _contents(read_elsewhere(folder / "model.gguf"))


def _ctranslate2(folder: Path) -> Seen:
    from sublayer.hub.ctranslate2.reading import import_ctranslate2

    return _contents(import_ctranslate2(folder))


def _argos(folder: Path) -> Seen:
    from sublayer.hub.ctranslate2.argos import import_argos

    seen = _contents(import_argos(folder / "x.argosmodel"))
    assert {path.name for path in folder.iterdir()} == {"x.argosmodel"}
    assert not list(folder.parent.glob("outside*"))
    return seen


def _keys(folder: Path) -> Seen:
    from sublayer.serving.keys import Keys

    found = Keys.read(folder / "keys.txt")
    lines = [line.strip() for line in (folder / "keys.txt").read_text(encoding="utf-8-sig").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    assert found.needed
    assert all(map(found.admit, keys))
    assert not any(map(found.admit, ("", "#", None, *(key + "x" for key in keys if key + "x" not in keys))))
    return {"keys": _digest(keys)}


def _own(folder: Path) -> Seen:
    from sublayer.hub.folder import ModelCard, read, ready, write

    found = read(folder)
    ready(found, folder)
    aside = folder / "again"
    write(aside, found, ModelCard("", "\n"))
    seen = _contents(found)
    assert seen == _contents(read(aside))
    return seen


def _engine(folder: Path) -> Seen:
    """What is taken can be run: that may give other numbers, and nothing else."""
    from dataclasses import asdict

    from sublayer.fast.engine.decoder import EngineDecoder
    from sublayer.fast.engine.file import read_file

    found = read_file(folder / "engine.bin")
    alone, most = EngineDecoder(found), min(found.geometry.max_length, 16)
    state = alone.start([[0] * most, [0]], 0, num_beams=2, capacity=most)
    logs: list[str] = []
    for _ in range(most):
        logs.append(repr(alone.best([0, 0, 0, 0], state, 3)[1].tolist()))
        state.reorder([1, 0, 3, 3])
    return {"geometry": _digest(asdict(found.geometry)), "answers": _digest("".join(logs))}


def _peft(folder: Path) -> Seen:
    from sublayer.hub.folder import read
    from sublayer.hub.peft import import_adapters

    import_adapters(folder / "adapter", folder / "base", folder / "out")
    return _contents(read(folder / "out"))


def _recipe(folder: Path) -> Seen:
    from sublayer.config.load import dump_toml, load_recipe

    found = load_recipe(str(folder / "recipe.toml")).recipe
    (folder / "again.toml").write_text(dump_toml(found), encoding="utf-8")
    assert load_recipe(str(folder / "again.toml")).recipe == found
    _require_said(tomllib.loads((folder / "recipe.toml").read_text()), tomllib.loads(dump_toml(found)))
    return {"recipe": _digest(found.plain())}


def _set(folder: Path) -> Seen:
    from sublayer.config.load import dump_toml, load_recipe

    override = (folder / "override.txt").read_text(encoding="utf-8", errors="surrogateescape")
    base = Path(__file__).parents[2] / "recipes" / "tatoeba-en-es-demo.toml"
    found = load_recipe(str(base), [override]).recipe
    (folder / "again.toml").write_text(dump_toml(found), encoding="utf-8")
    assert load_recipe(str(folder / "again.toml")).recipe == found
    name, _, value = override.partition("=")
    try:
        asked = tomllib.loads(f"{name} = {value}")
    except tomllib.TOMLDecodeError:  # a bare word is taken as it stands
        asked = tomllib.loads(f"{name} = ''")
        _at(asked, name.split("."), value)
    _require_said(asked, tomllib.loads(dump_toml(found)))
    return {"recipe": _digest(found.plain())}


def _at(table: dict[str, Any], path: Sequence[str], value: str) -> None:
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value


def _rows(folder: Path) -> Seen:
    from sublayer import config
    from sublayer.data.sources import read
    from sublayer.data.tables.conversations import read_conversations
    from sublayer.data.tables.documents import read_documents
    from sublayer.data.tables.labelled import read_labelled
    from sublayer.data.tables.tagged import read_tagged
    from sublayer.errors import SublayerError

    tries: Mapping[str, Callable[[], Any]] = {
        "pairs.jsonl": lambda: read(config.Jsonl(path="rows.jsonl"), folder),
        "pairs.tsv": lambda: read(config.Tsv(path="rows.tsv"), folder),
        "labelled.tsv": lambda: read_labelled(config.LabelledTsv(path="rows.tsv"), folder),
        "labelled.jsonl": lambda: read_labelled(config.LabelledJsonl(path="rows.jsonl"), folder),
        "tagged.conll": lambda: read_tagged(config.Conll(path="rows.conll"), folder),
        "chat.jsonl": lambda: read_conversations(config.Chat(path="rows.jsonl"), folder),
        "documents.txt": lambda: read_documents(config.PlainText(path="rows.txt"), folder),
    }
    refused: SublayerError | None = None
    seen: Seen = {}
    for name, each in tries.items():
        try:
            seen[name] = _digest(repr(each()).replace(str(folder), ""))
        except SublayerError as error:
            refused = error
    if refused is not None:
        raise refused
    return seen


def _state(folder: Path) -> Seen:
    from sublayer.training import checkpoint

    found = checkpoint.read(folder)
    again = checkpoint.write(folder / "again", found, 1)
    assert checkpoint.read(again).progress == found.progress
    return {"progress": _digest(repr(found.progress))}


READERS: Mapping[str, Callable[[Path], Seen]] = {
    "config": _config,
    "checkpoint": _checkpoint,
    "bert": _tokenizer,
    "gpt2": _tokenizer,
    "tokenizer": _tokenizer,
    "pieces": _tokenizer,
    "gguf": _gguf,
    "ctranslate2": _ctranslate2,
    "argos": _argos,
    "keys": _keys,
    "engine": _engine,
    "own": _own,
    "adapted": _own,
    "sentences": _own,
    "peft": _peft,
    "recipe": _recipe,
    "set": _set,
    "rows": _rows,
    "state": _state,
}


def _memory(name: str) -> int:
    """Bytes of this process, as the kernel counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def main() -> None:
    """Read what each line names."""
    import resource

    import torch

    from sublayer.errors import SublayerError

    torch.set_num_threads(1)
    limit = _memory("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        asked = json.loads(line)
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
        begun, error, seen = time.process_time(), "", {}
        try:
            seen = READERS[asked["reader"].split(" ")[0]](Path(asked["folder"]))
            outcome = "read"
        except SublayerError as refusal:
            outcome, error = "refused", str(refusal)
        except BaseException as fault:
            outcome, error = "fault", "".join(traceback.format_exception(fault))
        seconds, memory = time.process_time() - begun, _memory("VmHWM") - before
        told = {"outcome": outcome, "seconds": seconds, "memory": memory, "error": error, "seen": seen}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
