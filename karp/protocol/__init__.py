"""What server and workers say to each other, and the two state machines that say it. No I/O, no clock, no chance."""
