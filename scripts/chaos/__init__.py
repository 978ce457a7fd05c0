"""Faults in real runs, drawn at random, and the cost of connections that do not belong to a run: scripts/chaos.sh."""
