"""Processes of an engine on this host: arguments come on stdin, and they end when it closes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from multimodal_gen.errors import MultimodalGenError
from multimodal_gen.launch.child_environment import child_environment
from multimodal_gen.launch.model_path import ModelFiles
from multimodal_gen.messages.rank_args import SCHEDULER_LOST, ProcessArgs, RankArgs


class RankProcesses:
    """Ranks that run as children of this process."""

    def __init__(
        self,
        args: RankArgs,
        ranks: range,
        module: str,
        environment: Mapping[str, str] = {},
    ) -> None:
        """Start `ranks` of an engine, all that it has on this host, with `args` but for the number,
        and `environment` besides what each child has."""
        self._ranks = ranks
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for local_rank, rank in enumerate(ranks):
                place = msgspec.structs.replace(args.place, local_rank=local_rank)
                own = msgspec.structs.replace(args, rank=rank, place=place)
                self._processes.append(spawn(own, module, environment, place.local_ranks))
        except BaseException:
            self.kill()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids, in rank order."""
        return [process.pid for process in self._processes]

    def any_ended(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    def all_ended(self) -> bool:
        return all(process.poll() is not None for process in self._processes)

    def wait(self) -> None:
        """Wait until all have ended."""
        for process in self._processes:
            process.wait()

    def how_ended(self) -> str | None:
        """End of the first rank that did not just follow the Scheduler; None if none did."""
        for rank, process in zip(self._ranks, self._processes, strict=True):
            if process.poll() not in (None, SCHEDULER_LOST):
                return f"rank {rank} {manner(process)}"
        return None

    def kill(self, error: MultimodalGenError | None = None) -> None:
        """End all, and wait until they have; the reason does not matter to them."""
        end(self._processes)


def on_this_host(args: RankArgs, model: ModelFiles, folder: Path) -> RankArgs:
    """`args` for ranks of this host: with its files, and its folder for sockets and the like."""
    files = {name: str(file.absolute()) for name, file in model.components.items()}
    return msgspec.structs.replace(
        args,
        model_folder=str(model.folder.absolute()),
        model_file=None if model.file is None else str(model.file.absolute()),
        component_files=files,
        socket_folder=str(folder),
    )


def spawn(
    args: ProcessArgs, module: str, environment: Mapping[str, str], local_ranks: int
) -> subprocess.Popen[bytes]:
    """Start a process that runs `module`, one of an engine with `local_ranks` ranks here."""
    packed = msgspec.msgpack.encode(args)
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno() if _has_fileno(sys.stderr) else subprocess.DEVNULL,
        env=child_environment(local_ranks) | {**environment, "TMPDIR": args.socket_folder},
        cwd=args.socket_folder,  # Libraries may take settings and code from the working folder.
        start_new_session=True,
        umask=0o077,  # Compiled kernels, for one, are code that others must not write.
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # It is already dead; who watches will report it.
        process.stdin.write(len(packed).to_bytes(4, "big") + packed)
    return process


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kill those that still run, and wait for all."""
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def manner(process: subprocess.Popen[bytes]) -> str:
    """Manner in which a process ended: `was killed by SIGKILL`."""
    code = process.returncode
    if code < 0:
        known = {int(one): one.name for one in signal.Signals}
        return f"was killed by {known.get(-code, f'signal {-code}')}"
    return f"exited with status {code}"


def _has_fileno(stream: object) -> bool:
    """Returns False for a notebook's stderr, which is not a file."""
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return True
