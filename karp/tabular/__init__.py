"""From a table to a model: cells of files and frames, and the types of their columns."""
