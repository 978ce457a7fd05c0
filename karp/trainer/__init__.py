"""The Trainer, which is a program's side of a run, and its parts."""
