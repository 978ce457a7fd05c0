"""The network of a table: preprocessing of its numbers, the recipe, and the module that they make."""
