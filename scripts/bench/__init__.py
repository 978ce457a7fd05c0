"""Benchmarks of karp against hand-written NumPy and other engines; `scripts/bench.sh` runs them.

    cases.py         what is trained: sizes, weights, one batch
    handwritten.py   the step in plain NumPy, its matrix products alone, and the losses everybody must reach
    contestants.py   the step in karp and in other engines
    scalars.py       the step with one value per number
    memory.py        peak memory of a process
    contest.py       a process per contestant, rounds of turns
    table.py         medians, ratios, JSON
    picture.py       the same as a picture
    machine.py       what the figures depend on
    engine.py        bench.sh engine
    importing.py     bench.sh import
    exchange.py      bench.sh exchange
    feed.py          shuffled batches out of an array
    peers.py         workers that are not karp's
    clock.py         what is counted of a turn
    gate.py          how a turn's workers begin together
    footprint.py     start, memory and idleness of karp's processes
    modes.py         bench.sh modes
    tasks.py         what it trains
    tables/          bench.sh tables
    programs/        karp's part, as a user writes it
"""
