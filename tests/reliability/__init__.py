"""Each promise of docs/reliability.md as a script with a seed: ``python -m tests.reliability NAME``."""
