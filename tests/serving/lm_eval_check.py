"""lm-eval itself, asking a running server: what it finds is what the library finds.

    python tests/serving/lm_eval_check.py .venv-lm-eval/bin/lm_eval

lm-eval brings some fifty packages, among them its own `datasets` and `transformers`, so it stands in an environment of
its own (`make lm-eval`) and runs as a program, as its users do. Three tasks are made on the spot: choices by
log-likelihood, texts by rolling log-likelihood, and texts that go on until a line ends. Ends with 1 where one differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

import torch  # noqa: E402

from served import LINES, LONGEST, generator, running, tokenizer  # noqa: E402
from sublayer.generation.generator import Generator  # noqa: E402
from sublayer.text.export import export  # noqa: E402

CLOSE = 1e-3
"""Nats, of a whole text."""
NEW = 24
ROWS = [
    {"context": "The old man looks at", "choices": ["the sea", "the house", "a tool", "¿llaves?"], "answer": 0},
    {"context": "Where are my keys? ", "choices": ["They are", "on the table near the door."], "answer": 1},
    {"context": "One, two, three:\n", "choices": ["four", "猫と犬 🙂", "naïve"], "answer": 0},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: {kind}
{more}
"""
TASKS = {
    "choices": (
        "multiple_choice",
        'doc_to_text: "{{context}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"\n'
        "metric_list: [{metric: acc}]",
    ),
    "rolling": (
        "loglikelihood_rolling",
        'doc_to_text: ""\ndoc_to_target: "{{text}}"\nmetric_list: [{metric: word_perplexity}]',
    ),
    "going_on": (
        "generate_until",
        'doc_to_text: "{{context}}"\ndoc_to_target: "x"\nmetric_list: [{metric: exact_match}]\n'
        f'generation_kwargs: {{until: ["\\n"], max_gen_toks: {NEW}, do_sample: false}}',
    ),
}


def main() -> None:
    program = sys.argv[1]
    alone = generator()
    with tempfile.TemporaryDirectory() as work, running({"lm": alone}) as server:
        place = Path(work)
        (place / "rows.jsonl").write_text(
            "".join(json.dumps({**row, "text": text}) + "\n" for row, text in zip(ROWS, LINES, strict=False))
        )
        for name, (kind, more) in TASKS.items():
            task = TASK.format(name=name, rows=place / "rows.jsonl", kind=kind, more=more)
            (place / f"{name}.yaml").write_text(task)
        export(tokenizer(), place / "tokenizer", max_length=LONGEST, token_type_ids=False)
        said = {
            "model": "lm",
            "base_url": f"{server.address}/v1/completions",
            "tokenizer": place / "tokenizer",
            "max_length": LONGEST,
            "num_concurrent": 4,
        }
        command = [
            *(program, "run", "--model", "local-completions", "--tasks", ",".join(TASKS), "--include_path", work),
            *("--model_args", ",".join(f"{name}={value}" for name, value in said.items())),
            *("--output_path", place / "out", "--log_samples"),
        ]
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": work, "OPENAI_API_KEY": "none"}
        subprocess.run(list(map(str, command)), env=os.environ | offline, check=True)
        worst = max(compared(alone, place / "out", name) for name in ("choices", "rolling"))
        texts = [sample["resps"][0][0] for sample in samples(place / "out", "going_on")]
    contexts = [row["context"] for row in ROWS]
    own = [found.best.text for found in alone.generate(contexts, max_tokens=NEW, stop=["\n", "</s>"])]
    same = sum(map(str.__eq__, texts, own))
    say(f"log-likelihoods: at most {worst:.1e} apart; texts: {same} of {len(own)} the same")
    if worst > CLOSE or texts != own:
        say(f"lm-eval: {texts}\nsublayer: {own}")
        sys.exit(1)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def samples(out: Path, task: str) -> list[dict[str, Any]]:
    [path] = out.rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def compared(alone: Generator[Any], out: Path, task: str) -> float:
    """The most that a log-likelihood of lm-eval's is from the library's own."""
    own: Callable[..., Any] = rolling if task == "rolling" else continued
    worst = 0.0
    count = 0
    for sample in samples(out, task):
        for asked, told in zip(sample["arguments"].values(), sample["resps"], strict=True):
            found = told[0] if isinstance(told[0], list) else told
            expected, greedy = own(alone, *asked.values())
            worst = max(worst, abs(float(found[0]) - expected))
            assert greedy is None or str(found[1]) == str(greedy), (asked, found, greedy)
            count += 1
    assert count >= len(ROWS), "lm-eval has asked for nothing"
    return worst


def continued(alone: Generator[Any], context: str, rest: str) -> tuple[float, bool]:
    """What follows a context, whose spaces at its end belong to what follows, as lm-eval has it."""
    bare = context.rstrip()
    before, whole = alone.tokenizer.encode([bare, context + rest])
    return scored(alone, whole, len(before))


def rolling(alone: Generator[Any], text: str) -> tuple[float, None]:
    """A whole text, from its first token on, which follows the start token."""
    [ids] = alone.tokenizer.encode([text])
    return scored(alone, [tokenizer().start_id, *ids], 1)[0], None


def scored(alone: Generator[Any], ids: Sequence[int], begin: int) -> tuple[float, bool]:
    """Log-probability of the tokens from `begin` on, by the model's forward pass, and whether each is the best one."""
    with torch.no_grad():
        known = alone.model(torch.tensor([ids]))[0].double().log_softmax(-1)  # type: ignore[operator]
    places = range(begin, len(ids))
    gains = [known[at - 1, ids[at]].item() for at in places]
    return sum(gains), all(int(known[at - 1].argmax()) == ids[at] for at in places)


if __name__ == "__main__":
    main()
