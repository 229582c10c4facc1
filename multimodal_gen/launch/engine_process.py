"""Starts and watches the processes of an engine, and ends all of them if one is lost."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from multimodal_gen.client.own_process import OwnProcess
from multimodal_gen.client.scheduler_client import SchedulerClient
from multimodal_gen.configs.arguments.engine_args import EngineArgs
from multimodal_gen.configs.arguments.machine_args import MachineArgs
from multimodal_gen.configs.user_path import user_path
from multimodal_gen.errors import EngineDied, MultimodalGenError
from multimodal_gen.launch.child_environment import cache_folder
from multimodal_gen.launch.launcher import Launcher, Ranks, launcher_for
from multimodal_gen.launch.model_path import ModelFiles, find_model_files
from multimodal_gen.launch.private_folder import PrivateFolder
from multimodal_gen.launch.rank_processes import end, manner, spawn
from multimodal_gen.messages.links import LinkKeys
from multimodal_gen.messages.loading import LoadingProgress
from multimodal_gen.messages.model_info import ModelInfo
from multimodal_gen.messages.rank_args import (
    LONGEST_SOCKET_NAME,
    RankArgs,
    RankPlace,
    SchedulerArgs,
    client_address,
    client_token,
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
        self,
        args: EngineArgs,
        scheduler: subprocess.Popen[bytes],
        ranks: Ranks,
        folder: PrivateFolder,
        keys: LinkKeys | None = None,
        address: str | None = None,
    ) -> None:
        """`address`: where clients are served, by default in `folder`."""
        self._process = OwnProcess()
        self.args = args
        self._scheduler = scheduler
        self._ranks = ranks
        self.address = address or client_address(str(folder.path))
        self.client = SchedulerClient(self.address, keys=keys, describe_loss=self._how_it_ended)
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
        machines: MachineArgs = MachineArgs(),  # noqa: B008
        listen: str | None = None,
        environment: Mapping[str, str] = {},
        rank_module: str = RANK_MODULE,
        serves: bool = False,
    ) -> EngineProcess:
        """Start the processes and return at once; `wait_ready` waits for the model.

        `machines` says where the ranks run. With `listen`, a `tcp://` address, clients are served
        there, if they have the keys of `machines.key_file`. `environment` has the engine's share of
        the machine, if there are others on it. `rank_module` is the module that each rank runs; a
        benchmark uses one that measures itself. `serves`: see `RankArgs`. Raises InvalidCheckpoint
        if the model can't be found, and InvalidRequest for a log level that there is not, and for
        `machines`.
        """
        log_level()  # Ranks would end without saying so.
        model = find_model_files(
            args.model_path, args.revision, args.base_model_path, args.component_files
        )
        folder = PrivateFolder(longest_name=LONGEST_SOCKET_NAME)
        with ExitStack() as undo:
            undo.callback(folder.remove)
            launcher = launcher_for(args, machines, folder.path)
            told = _scheduler_args(args, model, str(folder.path), launcher, listen)
            token = token_file(client_address(str(folder.path)))
            _write_private(token, client_token(told.token))
            scheduler = spawn(told, SCHEDULER_MODULE, environment, args.num_gpus // machines.nnodes)
            undo.callback(end, [scheduler])
            template = _rank_args(told, args, model, serves)
            ranks = launcher.start(template, model, rank_module, environment)
            undo.callback(ranks.kill, None)
            engine = cls(args, scheduler, ranks, folder, launcher.keys, listen)
            undo.pop_all()
            return engine

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the ranks on this host, in rank order."""
        return self._ranks.pids

    @property
    def scheduler_pid(self) -> int:
        """Process id of the Scheduler."""
        return self._scheduler.pid

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
            error = self.client.died
            try:
                if self.client.model is not None:
                    self.client.shutdown_engine()
                    self._await_exits(GRACE_S)
            finally:  # Runs also if the wait is interrupted, as do both halves of this.
                try:
                    self.client.close()
                finally:
                    self._end(error)
                self._watcher.join()
                atexit.unregister(self.close)

    def _watch(self) -> None:
        """End the engine when a process dies, or when the client reports that it is lost."""
        while not self._closing.wait(WATCH_S):
            if self.client.died is None and not self._any_ended():
                continue
            self._hear_last_words()
            self.client.fail(EngineDied(self._how_it_ended()))
            self._end(self.client.died)
            return

    def _any_ended(self) -> bool:
        return self._scheduler.poll() is not None or self._ranks.any_ended()

    def _hear_last_words(self) -> None:
        """Give the client time to receive the Scheduler's last message, or to notice that it is
        gone, unless a rank has died of something else."""
        died_first = self._ranks.how_ended() is not None
        until = time.monotonic() + (WATCH_S if died_first else LAST_WORDS_S)
        while self.client.died is None and time.monotonic() < until:
            time.sleep(WATCH_S / 5)

    def _how_it_ended(self) -> str:
        """Report which process died, and how; waits briefly, as sockets close first."""
        until = time.monotonic() + GRACE_S / 10
        while time.monotonic() < until:
            if self._scheduler.poll() is not None:
                return f"the scheduler {manner(self._scheduler)}"
            if how := self._ranks.how_ended():
                return how
            time.sleep(WATCH_S / 5)
        return "the scheduler is silent"

    def _await_exits(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._scheduler.poll() is not None and self._ranks.all_ended():
                return
            time.sleep(0.01)

    def _end(self, error: MultimodalGenError | None) -> None:
        try:
            end([self._scheduler])
            self._ranks.kill(error)
        finally:  # Also if a second Ctrl-C interrupts the wait.
            self._folder.remove()


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _for_ranks(args: EngineArgs) -> EngineArgs:
    """Reduce `args`, which may be a server's, to those of ranks, with absolute paths."""
    return replace(
        EngineArgs.of(args),
        lora_dir=_absolute(args.lora_dir),
        control_dir=_absolute(args.control_dir),
        upscaler_dir=_absolute(args.upscaler_dir),
        prompt_enhancer=_absolute(args.prompt_enhancer),
    )


def _absolute(folder: str | None) -> str | None:
    return None if folder is None else str(Path(folder).absolute())


def _scheduler_args(
    args: EngineArgs, model: ModelFiles, folder: str, launcher: Launcher, listen: str | None
) -> SchedulerArgs:
    components = " ".join(f"{name}={file}" for name, file in sorted(model.components.items()))
    return SchedulerArgs(
        engine=_for_ranks(args),
        client_address=listen or client_address(folder),
        ranks_address=launcher.ranks_address,
        socket_folder=folder,
        token=secrets.token_hex(),
        keys=launcher.keys,
        model_files=f"{model.folder.absolute()} {model.file} {components}",
        cache_folder=str(cache_folder()),
    )


def _rank_args(told: SchedulerArgs, args: EngineArgs, model: ModelFiles, serves: bool) -> RankArgs:
    """Arguments of all ranks; the launcher fills in the rest."""
    return RankArgs(
        rank=0,
        place=RankPlace(local_ranks=args.num_gpus),
        engine=told.engine,
        ranks_address=told.ranks_address,
        socket_folder="",
        token=told.token,
        keys=None if told.keys is None else told.keys.of_client,
        model_folder="",
        model_name=_model_name(args.model_path, model),
        serves=serves,
    )


def _model_name(model_path: str | None, model: ModelFiles) -> str:
    """Model name for clients: its hub name, or the last part of its path."""
    if model_path is None or user_path(model_path).exists():
        return model.folder.resolve().name if model.file is None else model.file.stem
    return model_path
