"""`torch.compile`, whose kept code is used by the kind of processor that it was written for, and by no other.

torch keeps on disk what it has generated, and finds it again by the graph. How wide the processor's vectors are is in
the code and not in that key (torch 2.13): code for AVX-512, built again for AVX2, skips half of every row, and the
other way round it writes past the end. The numbers are wrong, and nothing says so. Two kinds meet one folder of kept
code where machines share it, and where `ATEN_CPU_CAPABILITY` is set for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.compiler import config

from sublayer.fast.facts import Identity


def torch_compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`torch.compile(function, **options)`; from then on what this thread compiles is kept for its kind of machine.

    torch compiles at the first call and keeps its settings for each thread, so call the function in the thread that
    made it. A tag of the user's own (`TORCH_COMPILE_CACHE_KEY_TAG`) counts as well.
    """
    here = Identity.here().key
    if not config.cache_key_tag.endswith(here):
        config.cache_key_tag += here
    return torch.compile(function, **options)
