"""The drivers of the server's machine: its own process, or the program's."""
