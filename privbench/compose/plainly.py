"""Hydra's and OmegaConf's errors, told as ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from privbench.errors import StorageError, UsageError


@contextmanager
def plain_errors() -> Iterator[None]:
    """Inside, what Hydra raises is a UsageError, and what a folder refuses is a StorageError.

    Hydra turns an error of a callback (our table) into a warning; here it is an error again.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Callback .* raised")
            yield
    except MissingMandatoryValue as cause:
        raise UsageError(f"{cause.full_key} is needed; type {cause.full_key}=...") from cause
    except (HydraException, OmegaConfBaseException) as cause:
        inner = cause.__cause__
        more = f": {inner}" if isinstance(inner, OmegaConfBaseException) else ""
        text = " ".join(f"{cause}".partition("Config search path")[0].split()) + more
        raise UsageError(f"{text} (what there is: privbench --help)") from cause
    except OSError as cause:
        raise StorageError(
            f"{cause}; expected a writable folder with space left: choose another with out=FOLDER"
        ) from cause
    except UserWarning as cause:
        raise StorageError(f"the table could not be written: {cause}") from cause
