"""A real language model as GGUF, run by llama.cpp: it says what is said here.

    sublayer pull smollm2 models/smollm2
    python tests/hub/gguf_check.py models/smollm2

Prompts are gone on from, and a conversation is answered, most probable tokens first, by llama.cpp and by the library on
the weights as they are read again from the same file. In float32 and float16 all tokens must be equal, but where two
are as good as equally probable: llama.cpp keeps keys and values in half precision. Narrower formats are told: there it
rounds activations too. Ends with 1 where something differs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch  # noqa: E402
from test_gguf_writing import LlamaCpp  # noqa: E402

from sublayer import config  # noqa: E402
from sublayer.generation.generator import Generator  # noqa: E402
from sublayer.hub import folder  # noqa: E402
from sublayer.hub.gguf_writing import export_gguf  # noqa: E402
from sublayer.hub.pulling import read_elsewhere  # noqa: E402

PROMPTS = ("The capital of France is", "Once upon a time there was a", "def fibonacci(n):\n")
TALK = [
    {"role": "system", "content": "You answer in one sentence."},
    {"role": "user", "content": "Why is the sky blue?"},
]
NEW = 40
CLOSE = 0.05
"""Nats between two tokens that rounding may choose between."""


def main() -> None:
    original = folder.read(Path(sys.argv[1]))
    wrong = 0
    with tempfile.TemporaryDirectory() as work:
        for weights in ("F32", "F16", "Q8_0", "Q4_0"):
            path = Path(work) / f"model-{weights}.gguf"
            export_gguf(path, original, weights)
            wrong += compared(path, weights, exact=weights.startswith("F"))
            path.unlink()
    sys.exit(1 if wrong else 0)


def compared(path: Path, weights: str, *, exact: bool) -> int:
    """How much differs that should not."""
    read = read_elsewhere(path)
    read.model.eval()
    own = Generator(read.model, read.tokenizer, config.Generation.parse(read.decoding, "decoding"))  # type: ignore[arg-type]
    server, wrong = LlamaCpp(path), 0
    for prompt in PROMPTS:
        ids = own.encode(prompt)
        theirs, _, count = server.completed(prompt, NEW)
        assert count == len(ids), f"{prompt!r} has {len(ids)} tokens here and {count} there"
        wrong += told(own, weights, prompt, ids, theirs, exact=exact)
    ids = own.encode_chat(TALK)
    asked = {"messages": TALK, "max_tokens": NEW, "temperature": 0, "logprobs": True, "top_logprobs": 1}
    found = server.server.handle_chat_completions({**asked, "cache_prompt": False})
    theirs = [each["id"] for each in found["choices"][0]["logprobs"]["content"]]
    assert found["usage"]["prompt_tokens"] == len(ids), "the chat template makes another prompt there"
    return wrong + told(own, weights, "a conversation", ids, theirs, exact=exact)


def told(own: Generator[Any], weights: str, prompt: str, ids: list[int], theirs: list[int], *, exact: bool) -> bool:
    """Say how far two texts agree; whether they differ where they should not."""
    ours = own.generate([ids], search=config.Greedy(), max_tokens=NEW, stop=[])[0].tokens
    both = list(zip(ours, theirs, strict=False))
    same = next((n for n, (one, other) in enumerate(both) if one != other), len(both))
    words = f"{weights}: {prompt.strip()!r}: {same} tokens the same"
    differs = same < len(both)
    if differs:
        with torch.no_grad():
            scores = own.model(torch.tensor([ids + ours[:same]]))[0, -1].log_softmax(-1)  # type: ignore[operator]
        apart = float(scores[ours[same]] - scores[theirs[same]])
        words += f", then two that are {apart:.3f} nats apart"
        differs = apart > CLOSE
    elif abs(len(ours) - len(theirs)) > 1:  # the end token is told in one of them
        words += f", and one goes on: {len(ours)} here, {len(theirs)} there"
        differs = True
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()
    return differs and exact


if __name__ == "__main__":
    main()
