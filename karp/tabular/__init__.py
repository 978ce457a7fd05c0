"""From a table to a model file: typed columns, the prepared table, the network and its recipe, predictions."""
