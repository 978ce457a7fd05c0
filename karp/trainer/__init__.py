"""What a program sees: a Trainer and what it is made of."""
