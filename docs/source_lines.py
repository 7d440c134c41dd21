"""How many lines of code there are, by package: without blank lines, comments and docstrings.

    python docs/source_lines.py [FOLDER ...]

Each FOLDER is a package's folder, `src/sublayer` where left out; of several, the columns stand side by side.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


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


def by_package(folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in folder.rglob("*.py"):
        inside = path.relative_to(folder).parts
        found[inside[0] if len(inside) > 1 else "(top)"] += code_lines(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]] or [Path("src/sublayer")]
    counts = [by_package(folder) for folder in folders]
    for package in sorted({package for count in counts for package in count}):
        print(f"{package:<12}", *(f"{count[package]:>7,}" for count in counts))
    print(f"{'all':<12}", *(f"{count.total():>7,}" for count in counts))


if __name__ == "__main__":
    main()
