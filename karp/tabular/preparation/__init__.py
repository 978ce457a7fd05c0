"""The prepared table: a table's rows as arrays on disk, in a random order, that all workers of a host map."""
