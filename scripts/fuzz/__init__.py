"""Malformed inputs for the wire, the server's machine and checkpoint files: scripts/fuzz.sh."""
