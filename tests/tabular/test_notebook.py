"""`karp.fit` in a notebook, whose kernel is a real one: what it shows, and what an interrupt leaves."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import PATIENCE, ROOT, environment, gone

pytest.importorskip("pyarrow")
pytest.importorskip("pandas")
pytest.importorskip("ipykernel")
pytest.importorskip("sklearn")
jupyter = pytest.importorskip("jupyter_client")

BEGIN = "import pandas, karp; frame = pandas.read_csv({path!r}); options = dict(n_jobs=2, layers=[16, 8], shards=2)"
CELL = "model = karp.fit(frame, target='species', epochs={epochs}, **options)"
SHARED = Path("/dev/shm")


class Notebook:
    """A kernel, and what its cells show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        variables = environment(TMPDIR=str(folder), IPYTHONDIR=str(folder / "ipython"))
        del variables["PYTHONWARNINGS"]  # the kernel's own are not ours
        self.manager = jupyter.KernelManager(kernel_name="python3", connection_file=str(folder / "kernel.json"))
        self.manager.start_kernel(cwd=str(ROOT), env=variables)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code: str, interrupt_at: str = "") -> tuple[str, dict[str, Any]]:
        """Run a cell; return what it writes, and its result, or its error under "error".

        The kernel is interrupted once what the cell writes has this text.
        """
        cell = self.client.execute(code)
        written, shown = "", {}
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != cell:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                written += content["text"]
                if interrupt_at and interrupt_at in written:
                    interrupt_at = ""
                    self.manager.interrupt_kernel()
            elif kind == "execute_result":
                shown = content["data"]
            elif kind == "error":
                shown = {"error": content["ename"], "text": "\n".join(content["traceback"])}
            elif kind == "status" and content["execution_state"] == "idle":
                return written, shown


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    made = Notebook(tmp_path)
    yield made
    made.close()


def test_a_cell_shows_a_bar_and_when_it_is_interrupted_it_can_run_again(notebook: Notebook) -> None:
    _, shown = notebook.run(BEGIN.format(path=str(ROOT / "workers" / "penguins.csv")))
    assert {} == shown
    before = set(os.listdir(SHARED)) if SHARED.exists() else set()
    written, shown = notebook.run(CELL.format(epochs=100_000), interrupt_at="training  ")
    assert "KeyboardInterrupt" == shown["error"], shown
    assert "training  ─" in written
    (name,) = {word for word in written.split() if "karp-fit-" in word}
    assert gone(Path(name))
    assert [] == list(notebook.folder.glob("karp-fit-*"))
    assert set() == {path for path in os.listdir(SHARED) if "karp" in path} - before if SHARED.exists() else True
    written, shown = notebook.run(CELL.format(epochs=3) + "\nmodel")
    assert "best      epoch" in written
    assert "<td style='text-align: left'>species: 3 classes (Adelie, Chinstrap, Gentoo)</td>" in shown["text/html"]
    _, shown = notebook.run("from karp.estimator import MLPClassifier; MLPClassifier()")
    assert "MLPClassifier" in shown["text/html"]
