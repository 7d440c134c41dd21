"""sublayer without its taps: a copy of the package from which every observation point has been cut out.

Not a stub in a tap's place, which would still be called, but the source without the calls: `self.stream(x)` becomes
`x`, `tap.listened` becomes `False`, and no `Tap` is made. What is left computes the same.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable
from pathlib import Path

import sublayer

CUT = ("nn", "models")
"""Where taps are made and called. What only listens is left as it is, and must not be imported from the copy."""


def write(folder: Path) -> int:
    """The copy, as `folder`/sublayer; how many calls of taps were cut out of it."""
    source = Path(sublayer.__file__).parent
    shutil.copytree(source, folder / "sublayer", ignore=shutil.ignore_patterns("__pycache__"))
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for part in CUT
        for path in sorted((folder / "sublayer" / part).rglob("*.py"))
    }
    taps = _taps(trees.values())
    total = 0
    for path, tree in trees.items():
        cutter = _Cutter(taps)
        path.write_text(ast.unparse(ast.fix_missing_locations(cutter.visit(tree))), encoding="utf-8")
        total += cutter.calls
    return total


def _taps(trees: Iterable[ast.Module]) -> dict[str, set[str]]:
    """For each class the attributes that are taps, those of its bases among them; classes are known by their names."""
    classes = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}

    def of(name: str) -> set[str]:
        if name not in classes:
            return set()
        own = {made for one in ast.walk(classes[name]) if (made := _made(one)) is not None}
        return own.union(*(of(base.id) for base in map(_plain, classes[name].bases) if isinstance(base, ast.Name)))

    return {name: of(name) for name in classes}


def _plain(base: ast.expr) -> ast.expr:
    """`Base` of `Base[Parameter]`."""
    return base.value if isinstance(base, ast.Subscript) else base


def _made(node: ast.AST) -> str | None:
    """The name in `self.name = Tap()`."""
    match node:
        case ast.Assign(targets=[ast.Attribute(value=ast.Name("self"), attr=name)], value=ast.Call(ast.Name("Tap"))):
            return name
    return None


class _Cutter(ast.NodeTransformer):
    def __init__(self, taps: dict[str, set[str]]) -> None:
        self._taps, self._here = taps, set[str]()
        self.calls = 0

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        outside, self._here = self._here, self._taps.get(node.name, set())
        self.generic_visit(node)
        self._here = outside
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if _made(node) in self._here else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        # The tap itself has become None, in `self.stream(x)` as in `tap=self.weights`.
        if isinstance(node.func, ast.Constant) and node.func.value is None:
            self.calls += 1
            return node.args[0]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        match node:
            case ast.Attribute(value=ast.Name("self"), attr=name) if name in self._here:
                return ast.Constant(None)
            case ast.Attribute(value=ast.Name("tap"), attr="listened"):
                return ast.Constant(False)
        return self.generic_visit(node)
