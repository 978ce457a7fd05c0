"""Who drives the server's machine: its own process, or the program's."""
