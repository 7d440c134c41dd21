"""All families of checkpoints that can be read and written."""

from __future__ import annotations

from sublayer.hub.families.llama import LLAMA
from sublayer.hub.family import Family

FAMILIES: tuple[Family, ...] = (LLAMA,)
