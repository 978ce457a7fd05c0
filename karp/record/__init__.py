"""The record of a run: its directory with reports, checkpoints and weights."""
