"""Readers of the table of operations: gradient check, drawing, functional forms."""
