"""The number of BLAS threads is the process's: the first Trainer sets it, the last restores it."""

import os
import signal
import threading

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import karp
from karp import nn, optim
from karp.errors import SettingError
from karp.trainer.blas_threads import LIMIT, Limit


def threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def trainer(threads: int) -> karp.Trainer:
    return karp.Trainer(nn.MLP(3, [4], 2), optim.SGD(lr=0.1), batch_size=16, threads=threads, show=False)


def test_the_first_sets_and_the_last_restores_in_whatever_thread_they_are() -> None:
    """Two Trainers overlap: the thread's is entered last, and left when the first has been."""
    entered, left = threading.Event(), threading.Event()
    seen = []

    def train() -> None:
        with trainer(1):
            entered.set()
            left.wait()
            seen.append(threads())
        seen.append(threads())

    with threadpool_limits(2, user_api="blas"):
        with trainer(1):
            assert {1} == threads()
            thread = threading.Thread(target=train)
            thread.start()
            entered.wait()
        assert ({1}, 1) == (threads(), LIMIT.holders)
        left.set()
        thread.join()
        assert ([{1}, {2}], {2}, 0) == (seen, threads(), LIMIT.holders)


def test_what_fails_at_the_beginning_leaves_nothing_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(threads: int) -> None:
        raise RuntimeError("no script")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("karp.trainer.claims._first", threading.Lock())
    monkeypatch.setattr("karp.trainer.script.launched", fail)
    for _ in range(2):  # the first Trainer has not been
        with pytest.raises(RuntimeError, match="no script"):
            trainer(1).__enter__()
        assert (0, before) == (LIMIT.holders, signal.getsignal(signal.SIGINT))


def test_another_number_meanwhile_is_refused_and_changes_nothing() -> None:
    with threadpool_limits(2, user_api="blas"):
        with trainer(1):
            with pytest.raises(SettingError, match=r"threads is 2, but another Trainer .* is training with 1"):
                trainer(2).__enter__()
            with trainer(1):
                pass
            assert ({1}, 1) == (threads(), LIMIT.holders)
        assert {2} == threads()
        with trainer(3):
            assert 0 < len(threads() - {1, 2})
        assert {2} == threads()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_no_part_in_what_its_parent_trains() -> None:
    with threadpool_limits(2, user_api="blas"):
        limit = Limit()
        limit.acquire(1)
        child = os.fork()
        if not child:
            good = limit.holders == 0
            limit.acquire(2)
            good &= threads() == {2}
            limit.release()
            os._exit(not good)
        assert 0 == os.waitpid(child, 0)[1]
        assert ({1}, 1) == (threads(), limit.holders)
        limit.release()
        assert {2} == threads()
