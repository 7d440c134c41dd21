"""How many lines of code there are, by package: without blank lines, comments and docstrings.

    python docs/source_lines.py [FOLDER ...]

Each FOLDER is a package's folder, `src/sublayer` where left out; of several, the columns stand side by side. The last
two lines are of the files that are new since the first count in docs/architecture.md (`NEW`), and of all others.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

NEW = """
    serving cli/serve.py fast/engine hub/ctranslate2 hub/engine_file.py hub/gguf_writing.py text/gguf_metadata.py
    hub/onnx.py data/filters.py config/filter.py data/parquet.py text/zstd.py data/shards training/preparing.py
    training/distributed nn/tensor_parallel.py nn/recompute.py config/parallel.py config/plan.py cli/plan.py
    generation/shortlist.py cli/shortlist.py cluster
""".split()  # noqa: SIM905
"""Folders and files."""


def code_lines(text: str) -> int:
    """Lines on which some token stands that is neither a comment nor part of a docstring."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in SILENT
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        # A string that stands alone says something of what it stands in, or after.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def by_package(folder: Path) -> tuple[Counter[str], int]:
    """The lines of each package, and those of new files."""
    found: Counter[str] = Counter()
    new = 0
    for path in folder.rglob("*.py"):
        inside, lines = path.relative_to(folder), code_lines(path.read_text(encoding="utf-8"))
        found[inside.parts[0] if len(inside.parts) > 1 else "(top)"] += lines
        new += lines if any(inside.is_relative_to(each) for each in NEW) else 0
    return found, new


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]] or [Path("src/sublayer")]
    counts = [by_package(folder) for folder in folders]
    for package in sorted({package for count, _ in counts for package in count}):
        print(f"{package:<12}", *(f"{count[package]:>7,}" for count, _ in counts))
    print(f"{'all':<12}", *(f"{count.total():>7,}" for count, _ in counts))
    print(f"{'new files':<12}", *(f"{new:>7,}" for _, new in counts))
    print(f"{'all others':<12}", *(f"{count.total() - new:>7,}" for count, new in counts))


if __name__ == "__main__":
    main()
