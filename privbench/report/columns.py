"""The columns of table.csv: an interface that people's scripts read."""

COLUMNS = (
    "study", "row", "data", "model", "regime", "defense", "threat", "column", "seat", "seats",
    "attack", "variant", "goal", "metric", "value", "low", "high", "over", "n", "n_negative",
    "blind", "blind_name", "reliable", "by_construction", "verdict", "status", "reason", "pairs",
    "n_pairs", "rows_seen", "steps_seen", "capture", "recorded", "accuracy",
    "bytes_per_sample", "flops_per_sample", "epsilon", "delta", "epsilon_covers", "shadow_models",
    "queries", "sealed", "train_seconds", "attack_seconds", "seed", "threads", "device", "fingerprint",
    "against_blind", "depth", "share_seen", "epochs_seen", "coalition", "power",
)  # fmt: skip

HEADLINE = {
    "membership": "auc",
    "recurrence": "auc",
    "reconstruction": "identification",
    "inversion": "evaluator_top1",
    "label": "label_accuracy",
    "audit": "epsilon_one_run",
}
"""The metric of each goal that the printed table shows."""

HEADLINES = (*HEADLINE.values(), "epsilon_composed")
"""The same, and that of an audit of every step."""

SUMMARY = ("worst", "median", "best")
"""Seats that stand for many."""
