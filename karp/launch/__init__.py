"""The launcher: starting the processes of a run on this host, watching them, resuming and replaying runs."""
