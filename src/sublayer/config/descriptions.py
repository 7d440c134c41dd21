"""What the docstring of a part says of its fields."""

from __future__ import annotations

import re
from collections.abc import Iterable


def field_descriptions(doc: str, names: Iterable[str]) -> dict[str, str]:
    """What a docstring says of each field in the form "name: text" or "name, other: text".

    A text ends where the next field's begins, or at an empty line.
    """
    name = "|".join(f"`?{name}`?" for name in sorted(names, key=len, reverse=True))
    found: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", doc):
        marks = list(re.finditer(rf"(?:(?<=\s)|^)((?:{name})(?:, (?:{name}))*):\s", paragraph))
        for mark, following in zip(marks, [*marks, None][1:], strict=True):
            text = " ".join(paragraph[mark.end() : following.start() if following else None].split())
            found |= dict.fromkeys((each.strip("`") for each in mark[1].split(", ")), text)
    return found
