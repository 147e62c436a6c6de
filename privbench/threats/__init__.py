"""Adversaries: which seats each takes, and what a seat knows (one file a kind of regime)."""
