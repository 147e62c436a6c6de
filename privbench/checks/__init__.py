"""The conformance kit: every rule of the contract, run over any plug-in that is installed.

A plug-in's whole test file::

    from privbench.checks import conformance

    test_conformance = conformance("my-distribution")
"""

from privbench.checks.kit import Check, checks_of, conformance, report_on
from privbench.checks.stage import Workshop

__all__ = ["Check", "Workshop", "checks_of", "conformance", "report_on"]
