"""What scripts/fuzz.sh runs: inputs that nobody should send, and what must not come of them."""
