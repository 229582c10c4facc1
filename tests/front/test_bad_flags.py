"""Bad values of every flag: exit status 2 and one line, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from places import ROOT

from multimodal_gen.entrypoints.cli import main as cli
from multimodal_gen.entrypoints.http import server
from multimodal_gen.entrypoints.http.transport.key_ring import KeyRing
from multimodal_gen.entrypoints.python import diffusion_generator
from multimodal_gen.errors import EngineNotReady
from multimodal_gen.launch.engine_process import EngineProcess

BAD = [
    "",
    "x",
    "-1",
    "0",
    "1e400",
    "nan",
    "9" * 5000,
    "\udcff",
    "a" * 5000,
    "folder",
    "/dev/null/x",
    "~nobody-of-this-name/x",
    "http://[::1",
]
"""Values of which each is bad for most flags; a flag may take some."""
PATHS = {"--model-path", "--base-model-path", "--output-path", "-o", "--server"}
"""Whose bad values are found when they are used, and are failures: status 1."""
FILES = {
    "a tag": "num_gpus: !!python/object/apply:os.system [x]",
    "an unknown tag": "num_gpus: !x 1",
    "another encoding": b"\xff\xfe\x00",
    "no map": "- a",
    "too deep": "[" * 5000,
    "itself": "a: &a [*a]",
    "a map for a number": "num_gpus: {a: b}",
    "a list for a number": "num_gpus: [1, 2]",
    "no number": "num_gpus: .nan",
    "too large a number": f"num_gpus: {'9' * 5000}",
    "no date": "num_gpus: 2020-13-45",
    "a key that is no text": "? [a]\n: b",
    "no truth": "num_gpus: !!bool x",
    "no character": 'num_gpus: "\\UFFFFFFFF"',
    "a control character": "num_gpus: \x07",
}


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever is accepted ends with status 1 where an engine or a server would start."""

    def start(*_: object, **__: object) -> NoReturn:
        raise EngineNotReady("accepted")

    def serve(args: object, *_: object) -> NoReturn:
        KeyRing(args)  # type: ignore[arg-type]
        start()

    monkeypatch.setattr(diffusion_generator, "start_engine", start)
    monkeypatch.setattr(server, "HttpServer", serve)
    monkeypatch.setattr(EngineProcess, "start", start)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()


def flags_of(command: str) -> list[str]:
    arguments = cli.app[command].assemble_argument_collection()
    return sorted({name for argument in arguments for name in argument.names if name[0] == "-"})


def outcome(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    status = cli.main(argv)
    said = capsys.readouterr().err
    if status == 2:
        assert len(said.splitlines()) == 1, said
    return status, said


BASES = {"generate": ["--prompt=a"], "serve": ["--port=0"], "models": [], "bench": []}
EVERY_FLAG = [
    (command, flag)
    for command in BASES
    for flag in flags_of(command)
    if command == "generate" or flag not in flags_of("generate")
]


@pytest.mark.parametrize(("command", "flag"), EVERY_FLAG, ids=map(" ".join, EVERY_FLAG))
def test_a_bad_value_is_bad_use(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [each for each in BASES[command] if not each.startswith(f"{flag}=")]
    for value in BAD:
        status, said = outcome(capsys, command, *base, f"{flag}={value}")
        late = status == 1 and ("accepted" in said or flag in PATHS)
        assert late or status in (0, 2), (value, said)


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("command", ["generate", "serve", "bench"])
def test_a_bad_config_file_is_bad_use(
    command: str, content: str | bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert outcome(capsys, command, *BASES[command], "--config=c.yaml")[0] == 2


@pytest.mark.parametrize("path", ["folder", "none.yaml", "~nobody-of-this-name/c.yaml", "a" * 5000])
def test_a_config_that_is_no_file_is_bad_use(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(capsys, "generate", "--prompt=a", f"--config={path}")[0] == 2


@pytest.mark.parametrize("level", ["loud", "17", "WARNING ", "\udcff"])
@pytest.mark.parametrize("command", ["generate", "serve"])
def test_a_bad_log_level_is_bad_use(
    command: str, level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MULTIMODAL_GEN_LOG_LEVEL", level)
    status, said = outcome(capsys, command, *BASES[command])
    assert status == 2
    assert "must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL" in said


@pytest.mark.parametrize("name", ["jobs.sqlite", "lock"])
def test_a_folder_in_place_of_a_file_of_the_data_is_bad_use(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (Path("data") / name).mkdir(parents=True)
    status, said = outcome(capsys, "serve", "--port=0", "--data-dir=data")
    assert status == 2
    assert name in said


CLOSED = """
import os, sys
from multimodal_gen.entrypoints.cli.running.progress_bar import ProgressBar
from multimodal_gen.entrypoints.cli import main as cli

os.close(0)
reads, writes = os.pipe()
os.close(reads)
os.dup2(writes, 1)
with ProgressBar([1, 1]) as bar:
    bar.finish(0, ["a.png"])
    bar.finish(1, ["b.png"])
sys.exit(cli.main(["models"]))
"""


def test_output_that_nobody_reads_is_no_failure() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLOSED],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
