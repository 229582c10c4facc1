"""Contract: a class name means one thing, and files and folders stay small enough to be read."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import multimodal_gen

PACKAGE = Path(multimodal_gen.__file__).parent
MAX_LINES = 400
MAX_MODULES = 16
"""Of a folder, `__init__.py` aside."""
ONE_FILE_A_FAMILY = {"configs/families", "runtime/pipelines/families"}
NAMED_TWICE: frozenset[str] = frozenset()
"""Public types that still share a name with another: to be emptied."""
TOO_LONG: frozenset[str] = frozenset()
TOO_FULL: frozenset[str] = frozenset()


def modules(kind: str = "py") -> Iterator[tuple[str, str]]:
    """Paths in the package, and their text."""
    for path in sorted(PACKAGE.rglob(f"*.{kind}")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text()


def types(text: str) -> Iterator[str]:
    """Names of public classes, and of aliases such as `Task = Literal[...]`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ClassDef(name=name) if not name.startswith("_"):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript()) if name[
                0
            ].isupper():
                if not name.isupper():
                    yield name


def test_no_name_of_a_public_type_means_two_things() -> None:
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for path, text in modules():
        for name in types(text):
            homes[name].append(path)
    shared = {name: paths for name, paths in homes.items() if len(paths) > 1}
    assert shared.keys() == NAMED_TWICE, shared


def test_no_file_is_too_long() -> None:
    files = (*modules(), *modules("js"), *modules("css"))
    lengths = {path: len(text.splitlines()) for path, text in files}
    assert {path for path, length in lengths.items() if length > MAX_LINES} == TOO_LONG


def test_no_folder_is_too_full() -> None:
    homes = [path.rpartition("/") for path, _ in (*modules(), *modules("js"))]
    counts = Counter(folder for folder, _, name in homes if name != "__init__.py")
    full = {folder for folder, count in counts.items() if count > MAX_MODULES}
    assert full - ONE_FILE_A_FAMILY == TOO_FULL
