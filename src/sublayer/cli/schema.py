"""`sublayer schema`: the JSON schema of a recipe, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sublayer.cli.terminal import say
from sublayer.untrusted import to_json


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to this file instead of standard output.", metavar="FILE")
    ] = None,
) -> None:
    """Print the JSON schema of recipes, for completion and checks in an editor.

    With taplo or Even Better TOML, begin the recipe with the line: #:schema ./recipe.schema.json

    Example: sublayer schema --out recipe.schema.json
    """

    from sublayer.config.schema import recipe_schema
    from sublayer.files import write_json

    if out is None:
        say(to_json(recipe_schema(), indent=2))
    else:
        write_json(out, recipe_schema())
        say(f"Wrote {out}.")
