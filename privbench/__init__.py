"""privbench: how much leaks from the way a model is trained, measured with the same attackers.

Public names are loaded when first used, so that ``privbench --help`` needs no torch.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Report", "__version__", "arrays", "run"]

_HOME = {
    "run": "privbench.compose.api",
    "arrays": "privbench.data.arrays",
    "Report": "privbench.report.report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'privbench' has no attribute '{name}'; it has {', '.join(__all__)}"
        )
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
