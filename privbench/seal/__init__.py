"""Runs an attack where it can reach nothing but its view, a seed and (some) an oracle."""

from privbench.seal.seal import Seal

__all__ = ["Seal"]
