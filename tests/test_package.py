"""What is shipped: a wheel of karp alone, which installs into an empty environment and trains."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(400)
def test_a_wheel_in_an_empty_environment_trains(tmp_path: Path) -> None:
    def run(*command: object) -> str:
        done = subprocess.run(
            [str(word) for word in command], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("karp-*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {"karp", wheel.name.split("-py3")[0] + ".dist-info"} == tops
    run(python, "-m", "pip", "install", "--quiet", wheel)
    says = "import importlib.metadata, karp; print(karp.__version__ == importlib.metadata.version('karp'))"
    assert "True\n" == run(python, "-c", says)
    out = run(python.parent / "karp", "launch", "-n", 2, ROOT / "workers" / "digits.py", "--epochs", 3)
    assert out.startswith("test accuracy 0.9")
    assert sys.version_info >= (3, 11)


def test_importing_karp_brings_nothing_that_only_a_run_needs() -> None:
    heavy = {"zmq", "msgpack", "rich", "safetensors", "threadpoolctl"}
    code = f"import sys, karp; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
