"""What the nodes of a Ray cluster need for the program of a run: its file, its folder, the files that it names."""

from pathlib import Path
from typing import NamedTuple

from karp.errors import SettingError
from karp.launch.named_files import named_files
from karp.launch.options import Options
from karp.launch.ray_actors import hash_of, installed

NAMED = 8  # the most files that a message names


class Seen(NamedTuple):
    """What a node has, as its actor answers (`WorkerActor.look`)."""

    node: str
    version: str
    digest: str
    sees_folder: bool
    missing: list[str]


class Needs:
    """What a run's program needs on every node; `sent` is the working directory that Ray sends there, if any."""

    def __init__(self, options: Options) -> None:
        self.program = Path(options.program).resolve()
        self.folder = Path.cwd()
        self.sent = Path(options.working_dir).resolve() if options.working_dir else None
        self.digest = hash_of(self.program)
        self.files = named_files(self.program, options.arguments)
        self.named: set[str] = set()  # the files of which the user has been told that a node lacks them

    def check_folder(self) -> None:
        """Raise SettingError if the program is to run in a folder that is not in the working directory."""
        if self.sent and not self.folder.is_relative_to(self.sent):
            raise SettingError(f"this folder is not in --working-dir {self.sent}: run from one that is")

    def there(self) -> tuple[str, str]:
        """Return program and folder as a node has them: in the working directory that is sent, if one is."""
        program, folder = (path.relative_to(self.sent) if self.sent else path for path in (self.program, self.folder))
        return str(program), str(folder)

    def lacking(self, seen: Seen) -> str:
        """Return why the program cannot run on a node, and what to do about it; '' if it can."""
        if other := other_karp(seen.node, seen.version):
            return other
        if seen.digest != self.digest:
            how = "has another" if seen.digest else "does not see the"
            return f"node {seen.node} {how} file {self.program}: put it on storage that all nodes share"
        if not seen.sees_folder:
            return f"node {seen.node} does not see the folder {self.folder}: run from one that all nodes share"
        return ""

    def warnings(self, seen: Seen) -> list[str]:
        """Return a warning of files that the program names, and that this node lacks; [] if no file is new in it."""
        missing = [file for file in seen.missing if file not in self.named]
        self.named.update(missing)
        if not missing:
            return []
        why = ": git ignores them, or they are not in --working-dir" if self.sent else ""
        files = ", ".join(missing[:NAMED]) + ", …" * (len(missing) > NAMED)
        return [f"node {seen.node} lacks files that {self.program.name} or its arguments name ({files}){why}"]


def other_karp(node: str, version: str) -> str:
    """Return that a node has another karp or Python than this host, and what to do about it; '' if it has the same."""
    return "" if version == installed() else f"node {node} has {version}, and this host {installed()}: install the same"
