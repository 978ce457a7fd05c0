"""The Trainer: a program's side of a run, and the batches that it computes.

A Trainer drives the worker's state machine and carries its messages over a link. Under a launcher that is a socket, in
one process the server's state machine, called directly: no socket, no copy of the weights, the same steps and bits.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from types import EllipsisType, TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from karp import checks, environment, faults, nn, optim
from karp.autograd import Value, dropping
from karp.consistency import CODEC, CODEC_WEIGHTS, LOCAL_STEPS, STALENESS
from karp.data import Plan, generator
from karp.environment import agreed
from karp.errors import ProgramError
from karp.limits import ANY_SHARDS, RANGES, setting
from karp.protocol import best
from karp.protocol.messages import Evaluation, Lease
from karp.protocol.settings import Settings
from karp.protocol.steps import Rounds, Steps, steps_of
from karp.protocol.worker import Worker
from karp.trainer import stage
from karp.trainer.claims import Claims
from karp.trainer.dataset import Dataset, weighting_of
from karp.trainer.inputs import Inspection, has_scores, loss_number, parameters_of, scores, settings_of
from karp.trainer.l2 import L2
from karp.trainer.link import connect
from karp.trainer.local_sgd import OUTER_OPTIMIZER, LocalSteps
from karp.trainer.placement import Placement
from karp.trainer.session import Session
from karp.trainer.stage import Stage, check

Evaluate = Callable[[], Mapping[str, float] | float]


class Trainer:
    """Trains `model` in this process, or as one of a run's workers where a launcher has started the program.

    Args:
        model: an `nn.Module`; its parameters become one flat vector.
        optimizer: of `karp.optim`; the server applies it, or with `local_steps` each worker.
        batch_size: samples of a global batch, that is of one step.
        epochs: how often each sample is used.
        shards: slices of a global batch; the number of workers at launch (1 in one process) unless given. The bits
            of the weights depend on it, but not on the number of workers.
        seed: of the sample order and of `rng`.
        keep_best: the name of a number that `evaluate` returns ("score" where it returns one number): the run ends with
            the weights of the epoch that has the best, in every worker and on the disk. A NaN is never best.
        mode, ties: whether "max" or "min" is best; whether the "last" or the "first" counts among equal ones.
        staleness: by how many steps the weights under a gradient may be old; None: asynchronous, the gradient of each
            shard, weighted by its share of the step, is an update of its own. 0 unless given here or by the launcher.
            With any other value the bits depend on timing; `karp replay` repeats them.
        local_steps: above 1, a step is a round of so many global batches: a worker takes a step of `optimizer` on its
            shard of each, starting from the step's weights with a new optimiser state, and contributes the difference.
            1 unless given here or by the launcher.
        optimizer_state: of another training, to go on with in one process; its vectors are changed in place.
        outer: the optimiser that the server then applies; SGD with Nesterov momentum 0.9 and rate 0.7 unless given.
        codec: how gradients go to the server: None, 'float16', 'bfloat16' or 'int8' (`karp.codecs`); each shard's is
            encoded by itself, in one process too, so the bits of the weights depend on it and on nothing else.
        codec_weights: how weights go to workers, for gradients alone: None, 'float16' or 'bfloat16'.
        threads: of the BLAS in each worker; 1 unless given here or by the launcher. The bits depend on it.
        run_dir: where the run's files go; a fresh folder under runs/ unless given here or by the launcher.
        record: whether the run leaves files. Under a launcher it always does, as its server restarts from them.
        show: whether progress is shown on standard error (in one process; a launcher shows its run itself).

    Raises SettingError for an argument that cannot be used.

    A Trainer is for one run (`karp/trainer/stage.py` says what may be called when). In one process any number may
    follow each other, or be nested in threads; under a launcher a program has one. In one process Ctrl-C, SIGTERM and
    SIGHUP end a run in good order (`karp/trainer/interrupts.py`), and `karp launch --resume` goes on with it.

    >>> import numpy as np
    >>> from karp import Trainer, nn, optim
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(64, 1)
    >>> model = nn.MLP(1, [8], 1)
    >>> with Trainer(model, optim.Adam(lr=0.03), batch_size=16, epochs=50, record=False, show=False) as trainer:
    ...     for xs, ys in trainer.batches(x, x * x):
    ...         trainer.backward(nn.mse(model(xs), ys))
    >>> trainer.main, bool(abs(model(x).data - x * x).mean() < 0.05)
    (True, True)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        *,
        batch_size: int,
        epochs: int = 1,
        shards: int | None = None,
        seed: int = 0,
        keep_best: str | None = None,
        mode: str = "max",
        ties: str = "last",
        staleness: int | EllipsisType | None = ...,
        local_steps: int | None = None,
        outer: optim.Optimizer | None = None,
        optimizer_state: optim.OptimizerState | None = None,
        codec: str | None = None,
        codec_weights: str | None = None,
        threads: int | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        record: bool = True,
        show: bool = True,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.batch_size = setting("batch_size", batch_size)
        self.epochs = setting("epochs", epochs)
        self.shards = None if shards is None else checks.whole("shards", shards, 1, RANGES["shards"][1])
        self.seed = setting("seed", seed)
        self.staleness = agreed(STALENESS, staleness, left_out=...)
        self.local_steps = agreed(LOCAL_STEPS, local_steps)
        self.threads = setting("threads", environment.threads() if threads is None else threads)
        self._best = best.check(keep_best, mode, ties)
        optim.to_dict(optimizer)  # raises SettingError for what is none
        self.outer = OUTER_OPTIMIZER if outer is None and self.local_steps > 1 else outer
        self.codec = agreed(CODEC, codec)
        self.codec_weights = agreed(CODEC_WEIGHTS, codec_weights)
        self.server = environment.read(environment.SERVER) or None
        self._output = run_dir, checks.switch("record", record), show, optimizer_state
        self._parameters = parameters_of(model)
        self._worker = Worker(self._parameters.data, environment.worker() if self.server else 0)
        self._placement = Placement(self._parameters, self._worker)
        self._session: Session | None = None
        self._claims = Claims()
        self._interrupts = self._claims.interrupts
        self._stage = Stage.MADE
        self._begun = False  # whether the loop over the batches has begun
        self._plan: Plan
        self._steps: Steps | None = None  # the plan's steps, or rounds of them; known in the loop
        self._batch = 0  # the number of the global batch; without local steps it is the step
        self._local_sgd = LocalSteps(optimizer, self._parameters) if self.local_steps > 1 else None
        self._dataset: Dataset | None = None
        self._shard, self._share = -1, 1.0  # the shard that the program computes, -1: none; its share of the step
        self._given: bool | None = True  # whether the current batch's loss was given to backward; None after the block
        self._inspection = Inspection(model, self._parameters)
        self._l2 = L2(self._parameters.layout)
        self._rng: np.random.Generator | None = None

    def __enter__(self) -> Self:
        check(self._stage, stage.ENTER)
        self._claims.acquire(self.threads, bool(self.server))
        self._stage = Stage.ENTERED
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise ProgramError("a Trainer takes part in one run: it cannot be copied or pickled; make one where it trains")

    def batches(
        self, *data: Any, sample_weights: Any = None, evaluate: Evaluate | None = None, wait_for_score: bool = False
    ) -> Iterator[Any]:
        """Iterate over the batches that this process has to compute; the loss of each goes to `backward` once.

        Within the loop the model's weights are read-only (except with local steps, which change them), and may lie in
        other memory than before it: read them through the model.

        Args:
            data: a `data.Table`, the `train` of `karp.prepare` or another `data.Source`, or arrays of equal length.
            sample_weights: (rows,), finite numbers from 0, or the source's. Those of its samples are a batch's last
                part, and the loss must be a mean weighted by them: `nn.mse(model(x), y, sample_weights=w)`.
            evaluate: called once per epoch in one of the workers, with the weights of that epoch's end; returns a
                number or a map of numbers, which go to the terminal and the record. If that worker or the server
                dies, it is called again, so the numbers must depend on the weights and `evaluation` alone.
            wait_for_score: the next epoch begins only when the score is known, as `evaluate` may call `stop`; and
                `evaluation.last_scores` has what it returned for the epoch before, in whichever worker.

        Raises:
            SettingError: no rows, or arrays of unequal length.
            RefusedError: the settings differ from those of the run.
            RunError: the run has failed elsewhere.
        """
        check(self._stage, stage.BATCHES)
        if self._parameters.data is not self._worker.weights or not self._worker.weights.flags.writeable:
            raise ProgramError("another Trainer is training this model: leave its loop first, or make a second model")
        dataset = self._dataset = Dataset(*data, sample_weights=sample_weights)
        settings = settings_of(
            self._parameters, self.optimizer, self.outer, **self._best,
            **dataset.settings(), batch_size=self.batch_size, epochs=self.epochs, shards=self.shards or ANY_SHARDS,
            seed=self.seed, threads=self.threads, evaluate=has_scores(evaluate), wait_for_score=wait_for_score,
            staleness=self.staleness, local_steps=self.local_steps, codec=self.codec, codec_weights=self.codec_weights,
        )  # fmt: skip
        with self._interrupts.deferred():
            link = connect(self._worker, self._parameters.layout, dataset.weights, *self._output, self._claims.launched)
            self._session, self._stage = Session(self._worker, link), Stage.TRAINING
            self._session.join(settings, dataset.remarks())
        return self._iterate(self._session, dataset, evaluate, settings)

    def _iterate(
        self, session: Session, dataset: Dataset, evaluate: Evaluate | None, settings: Settings
    ) -> Iterator[Any]:
        """Yield the batches of all tasks until the run is over for this worker, and evaluate when asked to."""
        check(self._stage, stage.ITERATE)
        self._begun = self._interrupts.working = True
        worker, placement, interrupts = self._worker, self._placement, self._interrupts
        if self._local_sgd is None:
            placement.make_read_only()
        try:
            session.wait_for_task()
            self._plan = dataset.plan(settings, worker.shards)
            self._steps = steps_of(self._plan, settings.local_steps)
            self._weighting = weighting_of(dataset.weights, self._plan, self._steps)
            worker.weigh = self._weighting.weigh
            while worker.over is None:
                placement.place_weights()
                if isinstance(worker.task, Lease):
                    yield from self._leased(session, worker.task, dataset)
                else:
                    assert isinstance(worker.task, Evaluation)
                    assert evaluate is not None
                    faults.reach("evaluation", step=worker.task.version)
                    with interrupts.allowed():
                        values = scores(evaluate(), settings.keep_best)
                    session.send(worker.scored(values))
                session.wait_for_task()
        finally:
            interrupts.working = True
            placement.restore_weights(session.link)
            interrupts.working = False
        if interrupts.pending:
            interrupts.raise_pending()

    def _leased(self, session: Session, lease: Lease, dataset: Dataset) -> Iterator[Any]:
        """Yield the batches of a lease, also of the steps to which it moves on in a range; send the contribution."""
        worker, link, plan, steps, placement = self._worker, session.link, self._plan, self._steps, self._placement
        interrupts = self._interrupts
        assert steps is not None
        last, take, share_of = worker.last, dataset.take, self._weighting.share
        placement.follow(link)
        while True:
            step = lease.step
            if faults.PLAN is not None:
                faults.reach("leased", step=step)
            for shard in range(lease.start, lease.stop):
                self._shard, self._share = shard, share_of(step, shard)
                for self._batch in steps.batches(step, shard) if isinstance(steps, Rounds) else (step,):
                    rows = plan.rows(self._batch, shard)
                    if lease.suspect:
                        worker.reason = worker.reason or dataset.not_finite(rows)
                    self._given, self._rng = False, None
                    batch = take(rows)
                    interrupts.working = False
                    if interrupts.pending:
                        interrupts.raise_pending()
                    yield batch if len(batch) > 1 else batch[0]
                    interrupts.working = True
                    if self._given is not True:
                        check(self._stage, stage.ITERATE)
                        raise ProgramError(f"the batch of step {step}, shard {shard} {stage.NOT_GIVEN}")
                if self._local_sgd is not None:
                    loss = self._local_sgd.finish_shard(self._share)
                    worker.computed(self._parameters.grad, loss, steps.shards_of(step))
            self._shard = -1
            if (node := worker.offer_sum(lease)) is None:
                break
            if not link.try_apply(lease, node, worker.weight_of(step)):
                worker.withdraw_offer(lease)
                break
            worker.version = lease.version
            placement.place_weights()
        if link.overtaken:  # the program may have read weights of two versions
            worker.discard(last)
        session.send(worker.contribution())

    def backward(self, loss: Value, l2: float = 0.0) -> None:
        """Compute the gradient of the current batch's loss, a mean over its samples: the shard's contribution.

        `l2` / 2 times the squares of the weights (parameters of two axes or more), divided by the step's samples or the
        sum of their weights, is part of the loss, too.
        The weights change between batches; with local steps `optimizer` changes them here. Raises ProgramError outside
        of the loop, for a second loss of one batch, and for a loss that is not a Value of one element, depends on no
        parameter, or depends on a dropout that was called without `rng`.
        """
        if self._given is not False:
            raise ProgramError(stage.TWICE if self._shard >= 0 else stage.OUTSIDE)
        number = loss_number(loss)
        if self._inspection.newest != dropping.newest:
            self._inspection.check_loss(loss)
        parameters, local_sgd = self._parameters, self._local_sgd
        share = self._share if local_sgd is None else 1.0
        parameters.zero_grad()
        loss.backward(share)
        if faults.PLAN is not None:
            faults.reach("computing", step=self.step)
        if parameters.values[-1].grad is None and all(value.grad is None for value in parameters.values):
            raise ProgramError("the loss depends on none of the model's parameters")
        if l2:
            strength = l2 * share / self._weighting.in_batch(self._batch, self._shard)
            number += self._l2.add(parameters.data, parameters.grad, strength, share)
        if local_sgd is None:
            self._worker.computed(parameters.grad, number * share, self._plan.shards_of(self._batch))
        else:
            local_sgd.take_step(number, self._weighting.in_batch(self._batch, self._shard), self._batch)
        self._given = True

    def stop(self) -> None:
        """End the run, for every worker, after the current step, whose other batches are still computed."""
        self._worker.last = True

    def log(self, **values: float) -> None:
        """Log numbers to the terminal and the record, with the step and, inside the loop, the shard.

        After the loop what the leader logs is recorded. Raises ProgramError for what cannot be logged, or not there.
        """
        check(self._stage, stage.LOG)
        for number in scores(values).items():
            self._worker.log(*number, self._shard)

    @property
    def step(self) -> int:
        """The step of the current batch; in an evaluation or after the loop, the number of steps applied."""
        task = self._worker.task
        if isinstance(task, Lease):
            return task.step
        if isinstance(task, Evaluation) and self.staleness is None:  # an asynchronous version counts shards
            return (task.epoch + 1) * self._steps_per_epoch
        check(self._stage, stage.POSITION)
        over = self._worker.over
        return max(0, self._worker.version) if over is None else over.steps

    @property
    def epoch(self) -> int:
        """The epoch of the current batch, or of the evaluation."""
        return self.step // self._steps_per_epoch if self.evaluation is None else self.evaluation.epoch

    @property
    def _steps_per_epoch(self) -> int:
        if self._steps is None:
            raise ProgramError(stage.POSITION[Stage.ENTERED])
        return self._steps.steps_per_epoch

    @property
    def shard(self) -> int:
        """The number of the current batch's shard in its step; -1 outside of a batch."""
        return self._shard

    @property
    def evaluation(self) -> Evaluation | None:
        """What `evaluate` is called for: `epoch`, `loss` (the mean of its steps) and `last_scores`; None elsewhere."""
        return self._worker.task if isinstance(self._worker.task, Evaluation) else None

    @property
    def rng(self) -> np.random.Generator:
        """The random generator of (seed, step, shard), for dropout, noise and the like: the same in any worker."""
        if self._shard < 0:
            raise ProgramError("trainer.rng belongs to a batch: use it in the loop over trainer.batches")
        if self._rng is None:
            self._rng = generator(self.seed, self._batch, self._shard)
        return self._rng

    @property
    def main(self) -> bool:
        """Whether this worker is the leader, whose output is shown; known after the loop.

        It is true in one worker. The others wait here until that one has ended; if it dies, one of them takes its
        place. Raises ProgramError before the run is over.
        """
        worker = self._worker
        if worker.over is None:
            raise ProgramError("trainer.main is known when the run is over: read it after the loop")
        if self._stage is Stage.LEFT and self._session is not None:
            self._session.wait_for_leader()
        return worker.over.main

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._claims.inherited:  # this process is a fork, and the run belongs to its parent
            return
        if isinstance(error, Exception) and self._shard >= 0 and self._dataset is not None:
            self._dataset.explain(error, self._plan.rows(self._batch, self._shard))
        interrupts, session, self._shard = self._interrupts, self._session, -1
        raised = interrupts.leave_block(error)
        if raised is None and session is not None and not self._begun:
            raised = ProgramError(stage.NOT_ITERATED)
        try:
            if self._local_sgd is not None:
                self._local_sgd.restore_weights()
            if session is not None:
                session.leave(raised, launched=bool(self.server))
            if raised is not None and raised is not error:
                raise raised
        except BaseException as failure:
            raised = failure
            raise
        finally:
            self._given, self._stage = None, Stage.LEFT
            try:
                self._placement.restore_weights(None if session is None else session.link)
                if session is not None and (raised is not None or not self.server):
                    session.close(raised)  # otherwise it is needed until the leader has ended
            finally:
                self._claims.release()
        if error is None and interrupts.pending:
            interrupts.raise_pending()
