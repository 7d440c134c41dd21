"""Valid files of every kind that is read, made on the spot; and a process that reads what has become of them.

Run as a program it is that process: a line on standard input names a reader and a folder, a line on standard output
says what came of it. Its memory is limited, so that a reader that believes a size dies here and nowhere else.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MEMORY = 2 * 1024**3
"""Bytes that a reader may take beside what the process has when it begins."""
TEXTS = ["the cat sat", "", " two  spaces\n", "El niño \U0001f600 <s> ▁", "x" * 50]


# --- valid files -------------------------------------------------------------------------------------------------


def make(root: Path) -> dict[str, Path]:
    """A folder of valid files for each reader."""
    import torch

    import readers
    import small_run
    import vocabularies

    sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
    from test_gguf import write_gguf

    from adapted import write_adapters, write_base
    from checkpoints import tiny_llama
    from sublayer.config.load import dump_toml
    from sublayer.config.recipe import Recipe
    from sublayer.hub.families import FAMILIES
    from sublayer.hub.folder import read
    from sublayer.hub.peft import export_adapters
    from sublayer.training import checkpoint as kept

    made: dict[str, Path] = {}
    for family in FAMILIES:
        written = family.write(family.read({"model_type": family.name})) or {"model_type": family.name}
        vocabularies.write(root / f"config {family.name}", "config.json", json.loads(json.dumps(written)))
        made[f"config {family.name}"] = root / f"config {family.name}"
    made["checkpoint"] = tiny_llama(root / "checkpoint", generation={"temperature": 0.7, "do_sample": True})
    made["bert tokenizer"] = vocabularies.bert(root / "bert", do_lower_case=True, mask_token="[MASK]")
    made["gpt2 tokenizer"] = vocabularies.gpt2(root / "gpt2", bos_token="<|endoftext|>", add_prefix_space=False)
    tokenizer = root / "fast"
    tokenizer.mkdir()
    for name in ("tokenizer.json",):
        shutil.copy(made["checkpoint"] / name, tokenizer / name)
    added = {"added_tokens_decoder": {"0": {"content": "<pad>", "special": True}}, "chat_template": "{{ messages }}"}
    specials = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "model_max_length": 10**30}
    vocabularies.write(
        tokenizer, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **added, **specials}
    )
    made["tokenizer"] = tokenizer
    for kind in ("unigram", "bpe"):
        folder = root / f"pieces {kind}"
        vocabularies.pieces(folder / "tokenizer.model", model_type=kind)
        vocabularies.write(folder, "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "legacy": True})
        made[f"pieces {kind}"] = folder
    (root / "gguf").mkdir()
    write_gguf(root / "gguf" / "model.gguf", "llama")
    made["gguf"] = root / "gguf"
    base = write_base(root / "own")
    made["own"] = base
    write_adapters(root / "adapted", base)
    made["adapted"] = root / "adapted"
    export_adapters(root / "peft" / "adapter", read(root / "adapted"))
    shutil.copytree(base, root / "peft" / "base")
    made["peft"] = root / "peft"
    readers.write_readers(root / "heads")
    made["sentences"] = root / "heads" / "minilm"
    (root / "recipe").mkdir()
    (root / "recipe" / "recipe.toml").write_text(dump_toml(Recipe.parse(small_run.recipe(), "recipe")))
    made["recipe"] = root / "recipe"
    vocabularies.write(root / "set", "override.txt", "model.encoder.block.attention.heads=2")
    made["set"] = root / "set"
    rows = root / "rows"
    pair = {
        "source": "a dog",
        "target": "un perro",
        "text": "a dog",
        "label": "x",
        "messages": [{"role": role, "content": "hi"} for role in ("user", "assistant")],
    }
    vocabularies.write(rows, "rows.jsonl", (json.dumps(pair) + "\n") * 3)
    vocabularies.write(rows, "rows.tsv", "a dog\tun perro\nthe cat\tel gato\n")
    vocabularies.write(rows, "rows.conll", "Ada\tB-PER\nlives\tO\n\nin\tO\nLondon\tB-LOC\n")
    vocabularies.write(rows, "rows.txt", "a dog\nthe cat\n\nin London\n")
    made["rows"] = rows
    tensors = {part: {"a": torch.zeros(2)} for part in kept.PARTS}
    made["state"] = kept.write(root / "state", kept.Checkpoint(kept.Progress(step=1), tensors), 1)
    return made


# --- readers: what is accepted does what it says -----------------------------------------------------------------


def _config(folder: Path) -> None:
    from sublayer.hub.importing import find_family, read_tree
    from sublayer.untrusted import read_object

    settings = read_object(folder / "config.json")
    tree = read_tree(find_family(settings, "config.json"), settings)
    assert type(tree).parse(tree.plain(), "config.json") == tree


def _tokenizer(folder: Path) -> None:
    from sublayer.text import Tokenizer
    from sublayer.text.folder import load_folder

    made = load_folder(folder)
    ids = made.encode(TEXTS)
    assert all(number >= 0 for row in ids for number in row)
    aside = folder / "again"
    aside.mkdir(exist_ok=True)
    made.save(aside / "tokenizer.json")
    assert Tokenizer.load(aside / "tokenizer.json").encode(TEXTS) == ids


def _again(folder: Path, model: Any) -> None:
    """What was imported is finite, and says something finite."""
    import torch

    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    with torch.no_grad():
        found = model.hidden(torch.tensor([[1, 2]])) if hasattr(model, "hidden") else None
    assert found is None or found.shape[:2] == (1, 2)


def _checkpoint(folder: Path) -> None:
    from sublayer.hub.pulling import read_elsewhere

    _again(folder, read_elsewhere(folder).model)


def _gguf(folder: Path) -> None:
    from sublayer.hub.pulling import read_elsewhere

    _again(folder, read_elsewhere(folder / "model.gguf").model)


def _own(folder: Path) -> None:
    import torch

    from sublayer.hub.folder import Papers, read, ready, write

    found = read(folder)
    ready(found, folder)
    aside = folder / "again"
    write(aside, found, Papers("", "\n"))
    again = read(aside)
    assert again.model.config == found.model.config
    assert again.decoding == found.decoding
    state = again.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in found.model.state_dict().items())


def _peft(folder: Path) -> None:
    from sublayer.hub.folder import read
    from sublayer.hub.peft import import_adapters

    import_adapters(folder / "adapter", folder / "base", folder / "out")
    read(folder / "out")


def _recipe(folder: Path) -> None:
    from sublayer.config.load import dump_toml, load_recipe

    found = load_recipe(str(folder / "recipe.toml")).recipe
    (folder / "again.toml").write_text(dump_toml(found), encoding="utf-8")
    assert load_recipe(str(folder / "again.toml")).recipe == found


def _set(folder: Path) -> None:
    from sublayer.config.load import dump_toml, load_recipe

    override = (folder / "override.txt").read_text(encoding="utf-8", errors="surrogateescape")
    base = Path(__file__).parents[2] / "recipes" / "tatoeba-en-es-demo.toml"
    found = load_recipe(str(base), [override]).recipe
    (folder / "again.toml").write_text(dump_toml(found), encoding="utf-8")
    assert load_recipe(str(folder / "again.toml")).recipe == found


def _rows(folder: Path) -> None:
    from sublayer import config
    from sublayer.data.sources import read
    from sublayer.data.tables.conversations import read_conversations
    from sublayer.data.tables.documents import read_documents
    from sublayer.data.tables.labelled import read_labelled
    from sublayer.data.tables.tagged import read_tagged
    from sublayer.errors import SublayerError

    tries: tuple[Callable[[], Any], ...] = (
        lambda: read(config.Jsonl(path="rows.jsonl"), folder),
        lambda: read(config.Tsv(path="rows.tsv"), folder),
        lambda: read_labelled(config.LabelledTsv(path="rows.tsv"), folder),
        lambda: read_labelled(config.LabelledJsonl(path="rows.jsonl"), folder),
        lambda: read_tagged(config.Conll(path="rows.conll"), folder),
        lambda: read_conversations(config.Chat(path="rows.jsonl"), folder),
        lambda: read_documents(config.PlainText(path="rows.txt"), folder),
    )
    refused: SublayerError | None = None
    for each in tries:
        try:
            assert len(each()) >= 0
        except SublayerError as error:
            refused = error
    if refused is not None:
        raise refused


def _state(folder: Path) -> None:
    from sublayer.training import checkpoint

    found = checkpoint.read(folder)
    again = checkpoint.write(folder / "again", found, 1)
    assert checkpoint.read(again).progress == found.progress


READERS: Mapping[str, Callable[[Path], None]] = {
    "config": _config,
    "checkpoint": _checkpoint,
    "bert": _tokenizer,
    "gpt2": _tokenizer,
    "tokenizer": _tokenizer,
    "pieces": _tokenizer,
    "gguf": _gguf,
    "own": _own,
    "adapted": _own,
    "sentences": _own,
    "peft": _peft,
    "recipe": _recipe,
    "set": _set,
    "rows": _rows,
    "state": _state,
}


def main() -> None:
    """Read what each line names."""
    import resource

    import torch

    from sublayer.errors import SublayerError

    torch.set_num_threads(1)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmSize:"):
            limit = int(line.split()[1]) * 1024 + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        asked = json.loads(line)
        begun, error = time.process_time(), ""
        try:
            READERS[asked["reader"].split(" ")[0]](Path(asked["folder"]))
            outcome = "read"
        except SublayerError as refusal:
            outcome, error = "refused", str(refusal)
        except BaseException as fault:
            outcome, error = "fault", "".join(traceback.format_exception(fault))
        seconds = time.process_time() - begun
        sys.stdout.write(json.dumps({"outcome": outcome, "seconds": seconds, "error": error}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
