"""Adds the folder ``conf`` to the packages that setuptools finds: it is ``privbench.conf``."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["privbench*", "attacks*", "defenses*"]), "privbench.conf"])
