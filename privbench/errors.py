"""Every error that privbench raises on purpose, typed by what the reader can do.

::

    PrivbenchError                  one message: what was expected, what came, what to type instead
    ├── UsageError                  mend the command line, the configuration or the call
    │   ├── UnknownName             a wrong name; the message lists the right ones
    │   ├── NameClash               two plug-ins claim one name
    │   └── NotApplicable           the threat does not grant what the attack needs; choose another
    ├── DataError                   mend the data: shapes, labels, number of records
    ├── TrainingError               mend the recipe: it did not train (NaN, accuracy out of reach)
    ├── BudgetError                 give devices more budget, or ask for less
    ├── PluginError                 mend the plug-in: it broke the contract or failed to import
    ├── AttackError                 the attack failed while it ran; the message holds its own words
    └── StorageError                mend the folder: unwritable, full, truncated
"""


class PrivbenchError(Exception):
    """Base of all errors that are printed without a traceback (``debug=true`` shows it).

    ``traceback`` is the text of the one that was left behind in a sealed process; empty elsewhere.
    """

    traceback: str = ""


class UsageError(PrivbenchError):
    """The command line, configuration or call asks for something that cannot be."""


class UnknownName(UsageError):
    """A name that nobody has; the message lists the names that exist."""


class NameClash(UsageError):
    """Two plug-ins claim one name, or a folder hides one of ours."""


class NotApplicable(UsageError):
    """The seat lacks what the attack needs, or a regime cannot cut the network. In a study this is a
    row, not a failure."""


class DataError(PrivbenchError):
    """The data set cannot be used as asked: shapes, labels, too few records."""


class TrainingError(PrivbenchError):
    """Training went wrong: NaN, or a target that cannot be reached."""


class BudgetError(PrivbenchError):
    """No slicing keeps the devices' budgets; the message names device, constraint and shortfall."""


class PluginError(PrivbenchError):
    """A plug-in cannot be imported or broke the contract."""


class AttackError(PrivbenchError):
    """An attack raised or died while it ran in its seal."""


class StorageError(PrivbenchError):
    """A file or folder cannot be read or written."""
