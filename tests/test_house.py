"""The house stands as it is drawn: a room uses only the rooms above it."""

import ast
import re
from functools import cache
from pathlib import Path

import karp

HOUSE = Path(karp.__file__).parent
ROOMS = [
    "errors",
    "lazy",
    "checks",
    "text",
    "limits",
    "consistency",
    "autograd",
    "parameters",
    "nn",
    "optim",
    "codecs",
    "data",
    "protocol",
    "environment",
    "faults",
    "record",
    "transport",
    "monitor",
    "serve",
    "trainer",
    "launch",
    "simulate",
    "tabular",
    "estimator",
    "export",
    "cli",
]
PURE = {"errors", "checks", "text", "limits", "consistency", "parameters", "optim", "codecs"}  # protocol may use them
FORBIDDEN_IN_PROTOCOL = {"asyncio", "io", "msgpack", "os", "pathlib", "random", "secrets", "select", "socket"} | {
    "subprocess",
    "sys",
    "threading",
    "time",
    "zmq",
}


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> set[str]:
    """Every module that the file imports, anywhere in it, except for types alone."""
    found = set()
    tree = tree_of(path)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {f"karp.{alias.name}" for alias in node.names} if module == "karp" else {module}
    return found


def rooms_used(path: Path) -> set[str]:
    return {module.split(".")[1] for module in imports_of(path) if module.startswith("karp.")}


@cache
def calls_of(path: Path) -> list[tuple[str, str]]:
    """What the file calls, without the module it is from, and the first argument."""
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    plain = [(ast.unparse(call.func), ast.unparse(call.args[0]) if call.args else "") for call in calls]
    return [(name.removeprefix("builtins.").removeprefix("importlib."), argument) for name, argument in plain]


def files(room: str = "") -> list[Path]:
    """The files of a room, or of the whole house; there are some."""
    found = [path for path in sorted((HOUSE / room).rglob("*.py")) if path != HOUSE / "__init__.py"]
    assert found
    return found


def test_every_file_stands_in_a_known_room() -> None:
    assert set() == {room_of(path) for path in files()} - set(ROOMS)


def test_no_import_hides_which_room_is_used() -> None:
    for path in files():
        assert "karp" not in imports_of(path), f"{path}: `import karp` opens every room"
        named = [module for call, module in calls_of(path) if call in ("__import__", "import_module")]
        own = "f'{package}." if room_of(path) == "lazy" else "f'{__name__}."  # packages call it with their names
        assert [] == [module for module in named if not module.startswith(own)], path


def test_a_room_uses_only_rooms_above_it() -> None:
    for path in files():
        below = set(ROOMS[ROOMS.index(room_of(path)) + 1 :])
        assert set() == rooms_used(path) & below, path


def test_the_readme_draws_the_rooms_in_this_order() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    drawn = re.findall(r"^  (\w+)(?:/|\.py) ", readme.split("## The tree")[1].split("workers/")[0], re.M)
    there = {room_of(path) for path in files()}
    assert [room for room in ROOMS if room in there] == drawn


def test_protocol_uses_only_what_is_named_for_it() -> None:
    for path in files("protocol"):
        assert set() == rooms_used(path) - PURE - {"protocol"}, path
        assert set() == {module.split(".")[0] for module in imports_of(path)} & FORBIDDEN_IN_PROTOCOL, path


def test_the_record_knows_no_server() -> None:
    for path in files("record"):
        assert set() == {module for module in imports_of(path) if module.startswith("karp.protocol.server")}, path


def test_no_pickle_and_no_eval() -> None:
    for path in files():
        assert set() == imports_of(path) & {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
        assert set() == {call for call, _ in calls_of(path)} & {"eval", "exec", "compile"}, path
        assert "allow_pickle=True" not in path.read_text(), path


def test_one_file_names_the_variables_between_launcher_and_program() -> None:
    for path in files():
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
        named = [text for text in texts if isinstance(text, str) and "KARP_" in text]
        assert bool(named) is (path.name == "environment.py"), path


def test_no_file_is_too_long_to_hold_in_mind() -> None:
    """More than 400 lines ask for a second room, or for less code."""
    lines = {str(path.relative_to(HOUSE)): len(path.read_text().splitlines()) for path in files()}
    assert len(files()) == len(lines)
    assert {} == {name: count for name, count in lines.items() if count > 400}
