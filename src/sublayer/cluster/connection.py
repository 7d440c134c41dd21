"""Ray, where it is installed: a cluster that runs already, or one of this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sublayer.errors import ConfigError

OBJECTS = 200 << 20
"""Bytes of the object store of a cluster that is started here: parts are told of in it, no rows."""


def required(name: str) -> Any:
    """A module of Ray's.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        what = "Ray is not installed" if find_spec("ray") is None else f"{name} cannot be imported ({error})"
        raise ConfigError(what, "pip install 'sublayer[cluster]'.") from None


@contextmanager
def connected(address: str | None, workers: int | None, cpus: int, gpus: int = 0) -> Generator[tuple[Any, int]]:
    """Ray Data within the block, and how many workers there are to be: as many as there is room for, if nobody says.

    Args:
        address: of a cluster; None for one that this process knows already, or $RAY_ADDRESS names, else a new one.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    # Set before Ray is there: nothing is told to its makers, and what its own threads note stays in its logs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray, data = required("ray"), required("ray.data")
    own = not ray.is_initialized()
    if own:
        begin(ray, address or os.environ.get("RAY_ADDRESS"), workers, cpus)
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        there = ray.cluster_resources()
        room = min(there.get(name, 0) // each for name, each in (("CPU", cpus), ("GPU", gpus)) if each)
        yield data, workers or max(1, int(room))
    finally:
        if own:
            ray.shutdown()


def begin(ray: Any, address: str | None, workers: int | None, cpus: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None or address == "local":
        own = None if workers is None else workers * cpus
        ray.init("local", num_cpus=own, include_dashboard=False, object_store_memory=OBJECTS, **quiet)
        return
    try:
        host, sign, port = address.rpartition(":")
        if sign and "/" not in host and port.isdecimal():
            # Ray itself would go on asking for minutes.
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}",
            "Start one (`ray start --head`), or leave the address out.",
        ) from None
