"""The room a plug-in imports: what an attack or a defense is, and what it is given.

Nothing here trains, measures or knows a data set.
"""

from privbench.contract.actor import Actor, Stand
from privbench.contract.attack import (
    GOALS,
    Attack,
    Fit,
    Knowledge,
    PrivacyCost,
    check_words,
)
from privbench.contract.augmentation import Augmentation, augmented, copies_of
from privbench.contract.cost import Bill, Carried, Cost, Volume
from privbench.contract.defense import LearningDefense, MessageDefense, Observed, Wrapped
from privbench.contract.guess import (
    GUESS_OF_GOAL,
    Guess,
    InversionGuess,
    LabelGuess,
    MembershipGuess,
    ReconstructionGuess,
)
from privbench.contract.losses import Handover, Losses
from privbench.contract.message import (
    HEADER_BYTES,
    KINDS,
    OWNERS,
    ROW_KINDS,
    TENSOR_KINDS,
    Message,
    Party,
    no_rows,
)
from privbench.contract.progress import Tell, counted, stage, told, watching
from privbench.contract.recipe import (
    Federation,
    GaussianMechanism,
    Net,
    Protocol,
    Recipe,
    Samples,
    Spec,
    Trainer,
    batches,
    child_rng,
    finite,
    load_name,
    optimizer_for,
    spec_of,
    steps_per_epoch,
)
from privbench.contract.threat import COLUMNS, GRANTS, PAIRS, Budget, Seat, Threat
from privbench.contract.topology import Layer, Load, Need, Slice, Topology, Traffic
from privbench.contract.tracing import traced
from privbench.contract.view import (
    Block,
    Fitted,
    Oracle,
    Own,
    Pairs,
    Public,
    View,
    Weights,
    blocks,
)

__all__ = [
    "COLUMNS", "GOALS", "GRANTS", "GUESS_OF_GOAL", "HEADER_BYTES", "KINDS", "OWNERS", "PAIRS", "ROW_KINDS",
    "TENSOR_KINDS", "Actor", "Attack", "Augmentation", "Bill", "Block", "Budget", "Carried", "Cost",
    "Federation", "Fit", "Fitted", "GaussianMechanism", "Guess", "Handover", "InversionGuess", "Knowledge",
    "LabelGuess", "Layer", "LearningDefense", "Load", "Losses", "MembershipGuess", "Message",
    "MessageDefense", "Need", "Net", "Observed", "Oracle", "Own", "Pairs", "Party", "PrivacyCost",
    "Protocol", "Public", "Recipe", "ReconstructionGuess", "Samples", "Seat", "Slice", "Spec", "Stand",
    "Tell", "Threat", "Topology", "Traffic", "Trainer", "View", "Volume", "Weights", "Wrapped",
    "augmented", "batches", "blocks", "check_words", "child_rng", "copies_of", "counted", "finite",
    "load_name", "no_rows", "optimizer_for", "spec_of", "stage", "steps_per_epoch", "told", "traced",
    "watching",
]
