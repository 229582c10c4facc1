"""An engine whose ranks a Ray cluster runs: a placement group an engine, an actor a rank."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Mapping
from typing import Any

import msgspec

from multimodal_gen.errors import InvalidRequest, MultimodalGenError
from multimodal_gen.launch.launcher import Ranks
from multimodal_gen.launch.machines.network import interface_towards, tcp_address
from multimodal_gen.launch.model_path import ModelFiles, find_model_files
from multimodal_gen.launch.private_folder import PrivateFolder
from multimodal_gen.launch.rank_processes import RankProcesses, on_this_host
from multimodal_gen.messages.links import LinkKeys
from multimodal_gen.messages.rank_args import LONGEST_SOCKET_NAME, RankArgs, RankPlace

log = logging.getLogger(__name__)
REMIND_S = 10.0
"""Interval at which it is said that the cluster has no room."""


class RayLauncher:
    """Lets the cluster that this machine is part of run the ranks."""

    def __init__(self, nnodes: int, keys: LinkKeys) -> None:
        """Raises InvalidRequest if Ray is not installed, or there is no cluster."""
        self._ray = _connected()
        self._nnodes = nnodes
        self._host = self._ray.util.get_node_ip_address()
        self.ranks_address = tcp_address(self._host, _free_port(self._host))
        self.keys: LinkKeys | None = keys

    def start(
        self, args: RankArgs, model: ModelFiles, module: str, environment: Mapping[str, str]
    ) -> Ranks:
        place = RankPlace(local_ranks=args.engine.num_gpus // self._nnodes)
        args = msgspec.structs.replace(args, place=place)
        return _RayRanks(self._ray, args, self._nnodes, self._host, module)


class _RayRanks:
    """Actors, and the placement group that holds their places."""

    def __init__(self, ray: Any, args: RankArgs, nnodes: int, host: str, module: str) -> None:
        self._ray = ray
        self._args = args
        self._group = ray.util.placement_group(
            [_share(ray, args)] * nnodes, "STRICT_SPREAD" if nnodes > 1 else "STRICT_PACK"
        )
        self._actors: list[Any] = []
        self._how_ended: str | None = None
        self._killed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(host, module), name="ray-ranks", daemon=True
        )
        self._thread.start()

    @property
    def pids(self) -> list[int]:
        return []

    def any_ended(self) -> bool:
        return self._how_ended is not None

    def all_ended(self) -> bool:
        return not self._thread.is_alive()

    def how_ended(self) -> str | None:
        return self._how_ended

    def kill(self, error: MultimodalGenError | None) -> None:
        if self._killed.is_set():
            return
        self._killed.set()
        # Its actors are killed with it, and their ranks end with them.
        self._ray.util.remove_placement_group(self._group)
        self._thread.join(REMIND_S)

    def _run(self, host: str, module: str) -> None:
        """Place the ranks, and wait until the first one ends."""
        try:
            self._await_places()
            self._place()
            starting = [
                actor.start.remote(msgspec.msgpack.encode(self._of(rank)), host, module)
                for rank, actor in enumerate(self._actors)
            ]
            for rank, where in enumerate(self._ray.get(starting)):
                log.info("rank %d runs on %s", rank, where)
            ends = [actor.wait.remote() for actor in self._actors]
            (first, *_), _ = self._ray.wait(ends, num_returns=1)
            self._how_ended = self._ray.get(first)
        except Exception as error:
            log.debug("a rank's actor was lost", exc_info=error)
            self._how_ended = f"a rank's actor was lost: {type(error).__name__}"

    def _await_places(self) -> None:
        """Wait until the cluster has room; an autoscaler may have to add machines."""
        ready = self._group.ready()
        while not self._ray.wait([ready], timeout=REMIND_S)[0]:
            log.warning("waiting for %s in the Ray cluster", self._group.bundle_specs)
        self._ray.get(ready)

    def _of(self, rank: int) -> RankArgs:
        return msgspec.structs.replace(self._args, rank=rank)

    def _place(self) -> None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        share, local_ranks = _share(self._ray, self._args), self._args.place.local_ranks
        kind = self._ray.remote(max_concurrency=2, max_restarts=0)(RankActor)
        for rank in range(self._args.engine.num_gpus):
            strategy = PlacementGroupSchedulingStrategy(self._group, rank // local_ranks)
            options = {"num_cpus": 1, "num_gpus": 1 if "GPU" in share else 0}
            self._actors.append(kind.options(scheduling_strategy=strategy, **options).remote())


class RankActor:
    """One rank, as a process that lives as long as its actor."""

    def start(self, packed: bytes, scheduler_host: str, module: str) -> str:
        """Start the rank. Returns the name of its host."""
        args = msgspec.msgpack.decode(packed, type=RankArgs)
        engine = args.engine
        model = find_model_files(
            engine.model_path, engine.revision, engine.base_model_path, engine.component_files
        )
        self._folder = PrivateFolder(longest_name=LONGEST_SOCKET_NAME)
        # Ray shows an actor its own GPU only, which is the first one then.
        interface = interface_towards(scheduler_host)
        place = msgspec.structs.replace(args.place, local_rank=0, interface=interface)
        own = msgspec.structs.replace(args, place=place)
        own = on_this_host(own, model, self._folder.path)
        self._ranks = RankProcesses(own, range(args.rank, args.rank + 1), module)
        return socket.gethostname()

    def wait(self) -> str:
        """Wait for the rank's end. Returns how it ended."""
        self._ranks.wait()
        return self._ranks.how_ended() or "a rank lost the scheduler"


def _connected() -> Any:
    try:
        import ray
    except ImportError as error:
        allowed = "needs the extra: pip install 'multimodal-gen[ray]'"
        raise InvalidRequest("launcher", "ray", allowed) from error
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=True, configure_logging=False)
        except ConnectionError as error:
            allowed = "there is no cluster here: start one with `ray start --head`"
            raise InvalidRequest("launcher", "ray", allowed) from error
    return ray


def _share(ray: Any, args: RankArgs) -> dict[str, float]:
    """Resources that a machine must have free for its ranks."""
    with_gpus = args.engine.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
    return dict.fromkeys(("CPU", "GPU") if with_gpus else ("CPU",), float(args.place.local_ranks))


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as probe:
        return int(probe.getsockname()[1])
