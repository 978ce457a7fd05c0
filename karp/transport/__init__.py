"""The transport of messages between server and workers: frames over ZeroMQ, keys, shared memory on one host."""
