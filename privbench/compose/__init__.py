"""Command-line words or Python objects to plans, and on to runs. Hydra begins and ends here."""
