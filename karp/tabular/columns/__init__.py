"""Columns of tables: cells of files and frames, and what type each column has."""
