"""Contract: nothing from outside is executed. No source file can unpickle, or run text as code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import multimodal_gen

PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_ATTRIBUTES = {"recv_pyobj", "send_pyobj", "unsafe_load", "full_load"}
FORBIDDEN_NAMES = {"torch.load", "yaml.load", "eval", "exec", "compile"}
FORBIDDEN_KEYWORDS = {
    "allow_pickle": True,
    "trust_remote_code": True,
    "use_safetensors": False,
    "weights_only": False,
}
PACKAGE = Path(multimodal_gen.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def violations(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (a.name for a in names if a.name.split(".")[0] in PICKLERS)
            case ast.ImportFrom(module=str(module), names=names):
                full = [f"{module}.{alias.name}" for alias in names]
                yield from (n for n in full if n.split(".")[0] in PICKLERS or _forbidden(n))
            case ast.Attribute() if _forbidden(ast.unparse(node)):
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_NAMES:
                yield name
            case ast.keyword(arg=str(name), value=ast.Constant(value=value)):
                if name in FORBIDDEN_KEYWORDS and FORBIDDEN_KEYWORDS[name] is value:
                    yield f"{name}={value}"


def _forbidden(dotted: str) -> bool:
    last = dotted.rsplit(".", 1)[-1]
    collective = last.endswith(("_object", "_object_list")) and dotted != last
    return dotted in FORBIDDEN_NAMES or last in FORBIDDEN_ATTRIBUTES or collective


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_source_file_unpickles_or_executes(path: Path) -> None:
    assert list(violations(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import torch; torch.load('x')",
        "from torch import load",
        "dist.broadcast_object_list(objects)",
        "from torch.distributed import all_gather_object",
        "socket.recv_pyobj()",
        "np.load(path, allow_pickle=True)",
        "Model.from_pretrained(path, use_safetensors=False)",
        "yaml.load(text)",
        "eval(text)",
    ],
)
def test_the_scan_sees(source: str) -> None:
    assert list(violations(source))


@pytest.mark.parametrize("source", ["model.eval()", "torch.compile(f)", "yaml.safe_load(text)"])
def test_the_scan_lets_pass(source: str) -> None:
    assert not list(violations(source))
