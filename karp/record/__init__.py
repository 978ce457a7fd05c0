"""The run's directory: what a run leaves behind, and what it can be resumed from."""
