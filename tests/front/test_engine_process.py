"""No rank is left behind, and what went wrong at the start is what the caller hears."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engines import assert_all_gone, pids_of, start_engine
from places import FAULTS_FOLDER, python_path

from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.server_args import SECRETS, ServerArgs
from multimodal_gen.errors import EngineDied, EngineNotReady, MultimodalGenError
from multimodal_gen.launch import engine_process, private_folder, rank_processes
from multimodal_gen.launch.child_environment import child_environment
from multimodal_gen.launch.engine_process import EngineProcess
from multimodal_gen.launch.rank_processes import spawn
from multimodal_gen.messages.rank_args import ProcessArgs, RankArgs, SchedulerArgs
from multimodal_gen.runtime import child_process

ABANDON = """
import sys
from multimodal_gen.configs.server_args import ServerArgs
from multimodal_gen.launch.engine_process import EngineProcess
engine = EngineProcess.start(ServerArgs(device="cpu", num_gpus=2))
if "ready" in sys.argv:
    engine.wait_ready(300)
print(engine.scheduler_pid, *engine.pids, flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where engines make their folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("multimodal-gen-*")]


def gone(pids: list[int], folder: Path, within_s: float = 60) -> bool:
    end = time.monotonic() + within_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids) or left_in(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("moment", ["loading", "ready"])
def test_no_rank_is_left_behind_by_an_interpreter_that_ends(folders: Path, moment: str) -> None:
    script = subprocess.run(
        [sys.executable, "-c", ABANDON, moment], capture_output=True, timeout=600, check=True
    )
    assert gone([int(pid) for pid in script.stdout.split()], folders)


@pytest.mark.parametrize("moment", ["loading", "ready"])
def test_no_rank_is_left_behind_by_a_killed_parent(folders: Path, moment: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ABANDON, moment, "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as script:
        assert script.stdout is not None
        pids = [int(pid) for pid in script.stdout.readline().split()]
        assert len(pids) == 3
        script.send_signal(signal.SIGKILL)
    assert gone(pids, folders)


def test_a_rank_without_a_parent_removes_what_is_made_meanwhile(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders / "multimodal-gen-test"
    folder.mkdir()
    late = ["client", "ranks"]
    remove = os.rmdir

    def remove_too_late(path: str, **options: Any) -> None:
        if late:
            (folder / late.pop()).touch()
        remove(path, **options)

    ended: list[int] = []
    monkeypatch.setattr(os, "rmdir", remove_too_late)
    monkeypatch.setattr(os, "_exit", ended.append)
    with open(os.devnull) as closed:
        monkeypatch.setattr(sys, "stdin", closed)
        child_process.end_with_parent(str(folder))
    assert (ended, late, left_in(folders)) == ([0], [], [])


def test_no_rank_is_left_behind_by_a_start_that_fails(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def third_fails(*args: object) -> subprocess.Popen[bytes]:
        if len(started) == 2:
            raise OSError("no more processes")
        started.append(spawn(*args))  # type: ignore[arg-type]
        return started[-1]

    for module in (engine_process, rank_processes):
        monkeypatch.setattr(module, "spawn", third_fails)
    with pytest.raises(OSError, match="no more processes"):
        start_engine(num_gpus=2)
    assert gone([process.pid for process in started], folders, within_s=0)


def test_closing_during_loading_and_twice_leaves_nothing(folders: Path) -> None:
    engine = start_engine(num_gpus=2)
    engine.close()
    engine.close()
    assert gone(pids_of(engine), folders, within_s=0)
    with pytest.raises(EngineNotReady):
        engine.wait_ready(1)


def test_ranks_get_no_secrets_by_their_standard_input_or_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = {name: f"http://secret/{name}" for name in SECRETS}
    for name, value in secrets.items():
        monkeypatch.setenv(f"MULTIMODAL_GEN_{name.upper()}", value)
    given: list[ProcessArgs] = []

    def fail_second(args: ProcessArgs, *_: object) -> subprocess.Popen[bytes]:
        given.append(args)
        if len(given) == 2:
            raise OSError("seen enough")
        return subprocess.Popen(["true"])

    for module in (engine_process, rank_processes):
        monkeypatch.setattr(module, "spawn", fail_second)
    with pytest.raises(OSError, match="seen enough"):
        EngineProcess.start(ServerArgs(device="cpu", **secrets))  # type: ignore[arg-type]
    assert [type(each) for each in given] == [SchedulerArgs, RankArgs]
    for each in given:
        assert each.engine == EngineArgs(device="cpu")
        assert b"//secret/" not in msgspec.msgpack.encode(each)
    assert not set(secrets.values()).intersection(child_environment().values())


def test_closing_one_engine_leaves_another_of_the_process_alone(engine: EngineProcess) -> None:
    engine.wait_ready(300)
    with start_engine() as other:
        assert other.address != engine.address
    assert engine.client.health(60).running == 0
    assert not any(gone([pid], Path("/none"), within_s=0) for pid in pids_of(engine))


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_several_ranks_that_cannot_load_says_why(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(FAULTS_FOLDER))
    monkeypatch.setenv("RANK_THAT_FAILS", str(rank))
    monkeypatch.setattr(engine_process, "LAST_WORDS_S", 30)
    args = ServerArgs(device="cpu", num_gpus=2)
    with (
        EngineProcess.start(args, rank_module="rank_that_cannot_load") as engine,
        pytest.raises(MultimodalGenError, match="a planted fault") as error,
    ):
        engine.wait_ready(300)
    assert not isinstance(error.value, EngineDied)


def test_a_shutdown_is_heeded_while_the_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(FAULTS_FOLDER))
    args = ServerArgs(device="cpu")
    with EngineProcess.start(args, rank_module="rank_that_loads_for_ever") as engine:
        with SchedulerClient(engine.address) as other:
            other.shutdown_engine()
            with pytest.raises(MultimodalGenError):
                engine.wait_ready(300)
        assert_all_gone(engine)


def test_a_death_by_any_signal_is_told() -> None:
    with start_engine() as engine:
        os.kill(engine.pids[0], signal.SIGRTMIN + 3)
        with pytest.raises(EngineDied, match=rf"rank 0 .* signal {signal.SIGRTMIN + 3}"):
            engine.wait_ready(300)


def test_who_waits_for_a_loss_can_tell_it_from_closing() -> None:
    with start_engine() as engine:
        os.kill(engine.pids[0], signal.SIGKILL)
        assert isinstance(engine.wait_lost(), EngineDied)
    with start_engine() as engine:
        threading.Timer(0.2, engine.close).start()
        assert engine.wait_lost() is None


def test_folders_of_killed_processes_are_removed_by_the_next_start(folders: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ABANDON, "loading", "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as script:
        assert script.stdout is not None
        pids = [int(pid) for pid in script.stdout.readline().split()]
        with start_engine():
            assert len(left_in(folders)) == 2, "a folder in use was removed"
        for pid in (*pids, script.pid):
            os.kill(pid, signal.SIGSTOP)
        for pid in (*pids, script.pid):
            os.kill(pid, signal.SIGKILL)
    assert len(left_in(folders)) == 1
    engine = start_engine()
    assert left_in(folders) == [Path(engine.address).parent.name]
    engine.close()
    assert left_in(folders) == []


def test_a_folder_that_is_not_ours_to_remove_stays(folders: Path) -> None:
    for name in ("multimodal-gen-without-lock", "another-lock"):
        (folders / name).mkdir()
    (folders / "another-lock" / "lock").touch()
    (folders / "multimodal-gen-link").symlink_to(folders / "another-lock")
    start_engine().close()
    kept = {"multimodal-gen-without-lock", "another-lock", "multimodal-gen-link"}
    assert {path.name for path in folders.iterdir()} == kept
    assert (folders / "another-lock" / "lock").exists()


def test_ranks_keep_temporary_files_in_the_folder_that_is_removed(folders: Path) -> None:
    with start_engine() as engine:
        engine.wait_ready(300)  # by then the process has its own program and environment
        (name,) = left_in(folders)
        environment = Path(f"/proc/{engine.pids[0]}/environ").read_bytes().split(b"\0")
        assert f"TMPDIR={folders / name}".encode() in environment
        assert Path(f"/proc/{engine.pids[0]}/cwd").resolve() == folders / name


def test_what_ranks_write_is_their_users_own_whatever_the_umask() -> None:
    before = os.umask(0)
    try:
        with start_engine() as engine:
            status = Path(f"/proc/{engine.pids[0]}/status").read_text()
    finally:
        os.umask(before)
    assert "Umask:\t0077\n" in status


def test_an_interrupted_close_removes_the_folder(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start_engine()

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.client, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    assert gone(pids_of(engine), folders, within_s=0)


def test_a_long_folder_of_temporary_files_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with start_engine() as engine:
        assert Path(engine.address.removeprefix("ipc://")).parent.parent == Path("/tmp")
        assert engine.wait_ready(300).name


def test_without_room_for_a_socket_the_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(private_folder, "_FALLBACK", str(tmp_path / "none"))
    with pytest.raises(MultimodalGenError, match=r"TMPDIR='.*xxx': must have at most \d+ bytes"):
        start_engine()
