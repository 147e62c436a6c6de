"""Every attack and defense of ours keeps every rule, as a stranger's has to."""

from __future__ import annotations

from privbench.checks import conformance

test_shipped = conformance("privbench")
