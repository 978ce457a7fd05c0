"""The program of an estimator's workers: `program.py DIR/job`; what they have trained is in the run's files."""

import sys
from pathlib import Path

from karp.estimator.job import Job
from karp.estimator.samples import validator
from karp.estimator.training import numbers_of_epoch, train
from karp.trainer.trainer import Trainer


def main(folder: Path) -> None:
    """Do the job in a folder as one of the workers of its run."""
    network, rows, rules, held_out = Job.read(folder)
    validate = None if held_out is None else validator(network, held_out)
    trainer = Trainer(
        network, rules.optimizer(rules.rate, len(rows)), batch_size=rules.batch_size, epochs=rules.epochs,
        shards=rules.shards, keep_best="score" if rules.scored else None, ties=rules.ties,
    )  # fmt: skip

    def evaluate() -> dict[str, float]:
        _, numbers = numbers_of_epoch(trainer, rules, validate, {})
        if numbers["failures"] > rules.n_iter_no_change:
            trainer.stop()
        return numbers

    train(trainer, network, rows, rules.alpha, evaluate)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
