"""Starts and watches the processes of an engine, and ends all of them if one is lost."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from multimodal_gen.client.own_process import OwnProcess
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import EngineDied, MultimodalGenError
from multimodal_gen.launch.child_environment import cache_folder, child_environment
from multimodal_gen.launch.model_path import ModelFiles, find_model_files
from multimodal_gen.launch.private_folder import PrivateFolder
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.rank_args import (
    LONGEST_SOCKET_NAME,
    SCHEDULER_LOST,
    ProcessArgs,
    RankArgs,
    RankPlace,
    SchedulerArgs,
    client_address,
    client_token,
    ranks_address,
    token_file,
)
from multimodal_gen.observability.logging import log_level

log = logging.getLogger(__name__)
RANK_MODULE = "multimodal_gen.runtime.rank"
SCHEDULER_MODULE = "multimodal_gen.runtime.scheduler"
WATCH_S = 0.05
GRACE_S = 3.0
"""Time for processes to exit on their own when the engine is closed."""
LAST_WORDS_S = 1.0
"""Time to wait, after the Scheduler's death, for the client to report its cause."""


class EngineProcess:
    """The Scheduler and the ranks of one checkpoint, and a client connected to them. A context
    manager."""

    def __init__(
        self, args: EngineArgs, processes: list[subprocess.Popen[bytes]], folder: PrivateFolder
    ) -> None:
        """`processes`: the Scheduler's, then the ranks' in order."""
        self._process = OwnProcess()
        self.args = args
        self._processes = processes
        self.address = client_address(str(folder.path))
        self.client = SchedulerClient(self.address, describe_loss=self._how_it_ended)
        self._folder = folder
        self._closing = threading.Event()
        self._closed = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="engine-watcher", daemon=True)
        self._watcher.start()
        atexit.register(self.close)

    @classmethod
    def start(
        cls,
        args: EngineArgs,
        *,
        environment: Mapping[str, str] = {},
        rank_module: str = RANK_MODULE,
    ) -> EngineProcess:
        """Start the processes and return at once; `wait_ready` waits for the model.

        `environment` has the engine's share of the machine, if there are others on it.
        `rank_module` is the module that each rank runs; a benchmark uses one that measures itself.
        Raises InvalidCheckpoint if the model can't be found, and InvalidRequest for a log level
        that there is not.
        """
        log_level()  # Ranks would end without saying so.
        model = find_model_files(
            args.model_path, args.revision, args.base_model_path, args.component_files
        )
        folder = PrivateFolder(longest_name=LONGEST_SOCKET_NAME)
        environment = {**child_environment(args.num_gpus), **environment}
        scheduler = _scheduler_args(args, model, str(folder.path))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            _write_private(token_file(scheduler.client_address), client_token(scheduler.token))
            processes.append(_spawn(scheduler, SCHEDULER_MODULE, environment))
            for rank in range(args.num_gpus):
                own = _rank_args(scheduler, model, rank, args)
                processes.append(_spawn(own, rank_module, environment))
            return cls(args, processes, folder)
        except BaseException:
            _end(processes, folder)
            raise

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the ranks, in rank order."""
        return [process.pid for process in self._processes[1:]]

    @property
    def scheduler_pid(self) -> int:
        """Process id of the Scheduler."""
        return self._processes[0].pid

    def wait_ready(
        self,
        timeout: float | None = None,
        show: Callable[[LoadingProgress], None] = lambda progress: None,
    ) -> ModelInfo:
        """Wait until the model is loaded; meanwhile, `show` the progress. Raises the error that
        prevented it, or TimeoutError."""
        return self.client.wait_ready(timeout, show)

    def wait_lost(self) -> MultimodalGenError | None:
        """Wait for the engine's end. Returns its cause, or None if it was closed."""
        self._watcher.join()
        return None if self._closing.is_set() else self.client.died

    def close(self) -> None:
        """End all processes, and cancel requests in flight. May be called again; no effect in a
        forked process."""
        if not self._process.is_this:
            return
        with self._closed:
            if self._closing.is_set():
                return
            self._closing.set()
            try:
                if self.client.model is not None:
                    self.client.shutdown_engine()
                    self._await_exits(GRACE_S)
            finally:  # Runs also if the wait is interrupted, as do both halves of this.
                try:
                    self.client.close()
                finally:
                    _end(self._processes, self._folder)
                self._watcher.join()
                atexit.unregister(self.close)

    def _watch(self) -> None:
        """End the engine when a process dies, or when the client reports that it is lost."""
        while not self._closing.wait(WATCH_S):
            if self.client.died is None and all(p.poll() is None for p in self._processes):
                continue
            self._hear_last_words()
            self.client.fail(EngineDied(self._how_it_ended()))
            _end(self._processes, self._folder)
            return

    def _hear_last_words(self) -> None:
        """Give the client time to receive the Scheduler's last message, or to notice that it is
        gone, unless a rank has died of something else."""
        died_first = any(p.poll() not in (None, SCHEDULER_LOST) for p in self._processes[1:])
        end = time.monotonic() + (WATCH_S if died_first else LAST_WORDS_S)
        while self.client.died is None and time.monotonic() < end:
            time.sleep(WATCH_S / 5)

    def _how_it_ended(self) -> str:
        """Report which process died, and how; waits briefly, as sockets close first."""
        end = time.monotonic() + GRACE_S / 10
        while time.monotonic() < end:
            for rank, process in enumerate(self._processes, -1):
                if (code := process.poll()) not in (None, SCHEDULER_LOST):
                    return f"{'the scheduler' if rank < 0 else f'rank {rank}'} {_manner(code)}"
            time.sleep(WATCH_S / 5)
        return "the scheduler is silent"

    def _await_exits(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(p.poll() is None for p in self._processes):
            time.sleep(0.01)


def _end(processes: list[subprocess.Popen[bytes]], folder: PrivateFolder) -> None:
    try:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for process in processes:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    finally:  # Also if a second Ctrl-C interrupts the wait.
        folder.remove()


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _for_ranks(args: EngineArgs) -> EngineArgs:
    """Reduce `args`, which may be a server's, to those of ranks, with absolute paths."""
    lora_dir = None if args.lora_dir is None else str(Path(args.lora_dir).absolute())
    return replace(EngineArgs.of(args), lora_dir=lora_dir)


def _scheduler_args(args: EngineArgs, model: ModelFiles, folder: str) -> SchedulerArgs:
    components = " ".join(f"{name}={file}" for name, file in sorted(_components(model).items()))
    return SchedulerArgs(
        engine=_for_ranks(args),
        client_address=client_address(folder),
        ranks_address=ranks_address(folder),
        socket_folder=folder,
        token=secrets.token_hex(),
        model_files=f"{model.folder.absolute()} {_single_file(model)} {components}",
        cache_folder=str(cache_folder()),
    )


def _rank_args(
    scheduler: SchedulerArgs, model: ModelFiles, rank: int, args: EngineArgs
) -> RankArgs:
    return RankArgs(
        rank=rank,
        place=RankPlace(local_rank=rank, local_ranks=args.num_gpus),
        engine=scheduler.engine,
        ranks_address=scheduler.ranks_address,
        socket_folder=scheduler.socket_folder,
        token=scheduler.token,
        keys=None if scheduler.keys is None else scheduler.keys.of_client,
        model_folder=str(model.folder.absolute()),
        model_file=_single_file(model),
        component_files=_components(model),
        model_name=_model_name(args.model_path, model),
    )


def _single_file(model: ModelFiles) -> str | None:
    return None if model.file is None else str(model.file.absolute())


def _components(model: ModelFiles) -> dict[str, str]:
    return {name: str(file.absolute()) for name, file in model.components.items()}


def _spawn(
    args: ProcessArgs, module: str, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    packed = msgspec.msgpack.encode(args)
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno() if _has_fileno(sys.stderr) else subprocess.DEVNULL,
        env={**environment, "TMPDIR": args.socket_folder},
        cwd=args.socket_folder,  # Libraries may take settings and code from the working folder.
        start_new_session=True,
        umask=0o077,  # Compiled kernels, for one, are code that others must not write.
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # It is already dead; the watcher will report it.
        process.stdin.write(len(packed).to_bytes(4, "big") + packed)
    return process


def _model_name(model_path: str | None, model: ModelFiles) -> str:
    """Model name for clients: its hub name, or the last part of its path."""
    if model_path is None or user_path(model_path).exists():
        return model.folder.resolve().name if model.file is None else model.file.stem
    return model_path


def _has_fileno(stream: object) -> bool:
    """Returns False for a notebook's stderr, which is not a file."""
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _manner(code: int | None) -> str:
    if code is not None and code < 0:
        known = {int(one): one.name for one in signal.Signals}
        return f"was killed by {known.get(-code, f'signal {-code}')}"
    return f"exited with status {code}"
