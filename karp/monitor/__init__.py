"""What a person sees of a run: the terminal's display, and standard streams that may be closed."""
