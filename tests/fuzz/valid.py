"""Valid files of every kind that is read, made on the spot."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path


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
    from sublayer.hub.loading import load
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
    fixture = Path(__file__).parents[1] / "fixtures" / "models" / "encoder-decoder"
    shutil.copytree(fixture, root / "fixture")
    load(root / "fixture")
    vocabularies.write(root / "engine", "about.md", "")
    shutil.copy(root / "fixture" / "engine.bin", root / "engine")
    made["engine"] = root / "engine"
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
    write_elsewhere(root, made)
    vocabularies.write(root / "keys", "keys.txt", "# Who may ask.\nsecret\n\nan other key\n")
    made["keys"] = root / "keys"
    tensors = {part: {"a": torch.zeros(2)} for part in kept.PARTS}
    made["state"] = kept.write(root / "state", kept.Checkpoint(kept.Progress(step=1), tensors), 1)
    return made


def write_elsewhere(root: Path, made: dict[str, Path]) -> None:
    """Write models as CTranslate2 and Argos Translate keep them: floats and whole numbers, with either tokenizer."""
    import torch

    from checkpoints import LINES, llama_tree, tiny_tokenizer
    from sublayer import config
    from sublayer.hub.ctranslate2.argos import Language, export_argos
    from sublayer.hub.ctranslate2.writing import export
    from sublayer.hub.folder import ModelBundle
    from sublayer.models import build_model
    from sublayer.text import Tokenizer

    torch.manual_seed(0)
    pieces = Tokenizer.train(LINES, config.Subwords(type="sentencepiece", vocab_size=320))
    part = config.PositionWise(hidden=20)
    stack = config.Stack(
        layers=1, block=config.Block(attention=config.Attention(heads=2), feed_forward=part, norm_placement="pre")
    )
    tree = config.EncoderDecoder(dim=16, vocab_size=pieces.vocab_size, max_length=40, encoder=stack, decoder=stack)
    translates = ModelBundle(build_model(tree), pieces, config.Decoding().plain())
    own = tiny_tokenizer()
    goes_on = ModelBundle(build_model(llama_tree(own.vocab_size)), own, config.Generation().plain())
    export(root / "ctranslate2", translates)
    # Only one tokenizer, so that the other reader is asked too.
    (root / "ctranslate2" / "tokenizer.json").unlink()
    export(root / "ctranslate2 whole", translates, "int8")
    export(root / "ctranslate2 alone", goes_on)
    for name in ("ctranslate2", "ctranslate2 whole", "ctranslate2 alone"):
        made[name] = root / name
    (root / "argos").mkdir()
    export_argos(root / "argos" / "x.argosmodel", translates, Language("en", "E"), Language("es", "S"), "# A package\n")
    made["argos"] = root / "argos"
