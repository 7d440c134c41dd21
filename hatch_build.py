"""Builds the engine's shared library when the package is installed or a wheel is made.

The compiler is the system's, or the one of the package `ziglang` where there is none, which pip then fetches for the
build alone. Where neither can build it, the package is installed without: models then run as modules, and say so.
"""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ENGINE = Path(__file__).parent / "src/sublayer/fast/engine"


def _builder() -> dict[str, Any]:
    """What `build.py` defines: it is read by its path, since the package is not there yet."""
    return runpy.run_path(str(ENGINE / "cpp/build.py"))


class EngineBuildHook(BuildHookInterface[Any]):
    """The hook that hatchling calls; see above."""

    def dependencies(self) -> list[str]:
        return [] if self.target_name != "wheel" or _builder()["system_compiler"]() else ["ziglang>=0.15,<0.18"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        library = ENGINE / "libengine.so"
        try:
            _builder()["build"](library)
        except (RuntimeError, OSError) as error:
            library.unlink(missing_ok=True)
            self.app.display_warning(f"the engine was not built, so models run as modules: {error}")
            return
        # It is not under version control, so it must be named; and it fits one kind of machine, whatever the Python.
        build_data["artifacts"].append("src/sublayer/fast/engine/libengine.so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
