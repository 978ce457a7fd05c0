"""For all tests: no test of laws fails because the machine is busy."""

from hypothesis import settings

settings.register_profile("karp", deadline=None)
settings.load_profile("karp")
