"""What everybody in or around a crowd knows."""

from __future__ import annotations

KNOWN = frozenset({"candidates", "auxiliary", "recipe"})
"""Granted to every seat at traffic."""


EARLY = (("steps", "first:8"),)
"""The setting under which a seat looks at steps of public weights."""


def from_start(steps: str) -> frozenset[str]:
    """Initial weights are public, so who looks at step 0 knows the whole network there."""
    return frozenset({"initial_weights"}) if steps.startswith(("first", "all")) else frozenset()
