"""How long a browser takes to open a view: 12 layers, 12 heads, 128 tokens, from one HTML file on the disk.

    python benchmarks/page_opening.py --rounds 7

Needs Debian's chromium at /usr/bin/chromium. "Drawn" is the page's own mark, set when all panels stand; "shown" is the
frame after it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import machine
import options as options_of
import torch
from summary import Summary, table, write

from sublayer import config
from sublayer.config.presets import preset
from sublayer.generation.generator import Generator
from sublayer.inspection.html import write_html
from sublayer.inspection.look import look
from sublayer.inspection.view import Question
from sublayer.models import build_model
from sublayer.text import Tokenizer

CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SHOWN = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
DRAWN = "() => performance.getEntriesByName('sublayer-view').length"


def main() -> None:
    """Write the file, open it again and again, print the medians."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "view.html"
        write_view(path, options.shape, options.tokens)
        megabytes = path.stat().st_size / 1e6
        drawn, shown = (Summary.of(times) for times in opened(path, options.rounds))
    print(f"{machine.described(machine.facts())}\n")
    row = [f"{options.shape}, {options.tokens} tokens", f"{megabytes:.1f}", drawn.shown(0), shown.shown(0)]
    print(table(["view", "MB", "drawn, ms (quartiles)", "shown, ms"], [row]))
    result = {"megabytes": megabytes, "drawn_ms": drawn.plain(), "shown_ms": shown.plain()}
    print(f"\nWritten to {write(options, result)}")


def write_view(path: Path, shape: str, tokens: int) -> None:
    """A view of a model of a preset's shape with random weights."""
    words = [f"word{n}" for n in range(200)]
    tokenizer = Tokenizer.train([" ".join(words)] * 2, config.Subwords(vocab_size=900))
    torch.manual_seed(0)
    tree = preset(shape).model_copy(update={"vocab_size": tokenizer.vocab_size})
    generator = Generator(build_model(tree), tokenizer, config.Generation())
    text = tokenizer.decode([tokenizer.encode([" ".join(words)])[0][:tokens]])[0]
    write_html(look(generator, Question(text=text, tokens=0)), path)


def opened(path: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds until drawn and until shown, of each round, in a new tab each."""
    from playwright.sync_api import sync_playwright

    drawn: list[float] = []
    shown: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        for _ in range(rounds):
            page = browser.new_page()
            page.goto(path.as_uri())
            page.wait_for_function(DRAWN)
            shown.append(page.evaluate(SHOWN))
            drawn.append(page.evaluate("performance.getEntriesByName('sublayer-view')[0].startTime"))
            page.close()
        browser.close()
    return drawn, shown


def _options() -> argparse.Namespace:
    parser = options_of.parser(__doc__, name="page-opening")
    parser.add_argument("--shape", default="gpt2", help="a preset of a decoder-only model")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    return options_of.read(parser, quick={"shape": "mini-lm", "tokens": 8, "rounds": 1})


if __name__ == "__main__":
    main()
