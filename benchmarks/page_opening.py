"""How long a browser takes to open a view: 12 layers, 12 heads, 128 tokens, from one HTML file on the disk.

    python benchmarks/page_opening.py --rounds 7

Needs Debian's chromium at /usr/bin/chromium. "Drawn" is the page's own mark, set when all panels stand; "shown" is the
frame after it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "view.html"
        write_view(path, options.tokens)
        drawn, shown = opened(path, options.rounds)
    print(f"{path.name}: drawn after {statistics.median(drawn):.0f} ms ({min(drawn):.0f} - {max(drawn):.0f}), ", end="")
    print(
        f"shown after {statistics.median(shown):.0f} ms ({min(shown):.0f} - {max(shown):.0f}), {options.rounds} rounds"
    )


def write_view(path: Path, tokens: int) -> None:
    """A view of a model of GPT-2's shape with random weights."""
    words = [f"word{n}" for n in range(200)]
    tokenizer = Tokenizer.train([" ".join(words)] * 2, config.Subwords(vocab_size=900))
    torch.manual_seed(0)
    tree = preset("gpt2").model_copy(update={"vocab_size": tokenizer.vocab_size})
    generator = Generator(build_model(tree), tokenizer, config.Generation())
    text = tokenizer.decode([tokenizer.encode([" ".join(words)])[0][:tokens]])[0]
    write_html(look(generator, Question(text=text, tokens=0)), path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


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


if __name__ == "__main__":
    main()
