"""The protocol between server and workers: messages and the two state machines, without I/O, clock or randomness."""
