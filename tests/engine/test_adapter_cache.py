"""What rank 0 knows of the ranks' LoRAs: loads, places, and who waits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from multimodal_gen.checkpoints.lora.folder import LoraFolder
from multimodal_gen.configs.control.choice import ControlChoice
from multimodal_gen.configs.lora.choice import LoraChoice
from multimodal_gen.configs.sampling_params import SamplingParams
from multimodal_gen.errors import InvalidRequest
from multimodal_gen.messages.plan import AdapterRead
from multimodal_gen.messages.reply import WireError
from multimodal_gen.runtime.scheduler.adapter_cache import AdapterCache


def chosen(loras: Sequence[LoraChoice]) -> SamplingParams:
    return SamplingParams(lora=tuple(loras))


class Rank:
    """One rank that reads at once, and the requests of a cache with room for two LoRAs."""

    def __init__(self, folder: Path) -> None:
        for name in "abcd":
            (folder / f"{name}.safetensors").touch()
        self.folder = folder
        self.cache = AdapterCache({"lora": str(folder)}, capacity=2, ranks=1)
        self.present: dict[int, str] = {}

    def ask(self, request_id: str, names: str) -> bool:
        """Whether the request can run at once, or as soon as its LoRAs were read."""
        versions = self.cache.find(chosen([LoraChoice(name) for name in names]))
        self.cache.wait(request_id, versions)
        return request_id in self.settle()

    def settle(self) -> list[str]:
        ready = self.cache.take_ready()
        while self.cache.has_orders:
            unload, load = self.cache.orders()
            for number in unload:
                del self.present[number]
            for order in load:
                self.present[order.number] = order.name
                self.cache.reported(AdapterRead(number=order.number, rank=0))
            ready += self.cache.take_ready()
        return ready

    @property
    def names(self) -> str:
        return "".join(sorted(self.present.values()))


@pytest.fixture
def rank(tmp_path: Path) -> Rank:
    return Rank(tmp_path)


def test_the_least_recently_used_goes(rank: Rank) -> None:
    for request_id, name in enumerate("abac"):
        assert rank.ask(str(request_id), name)
        rank.cache.leave(str(request_id))
    assert rank.names == "ac"


def test_what_is_in_use_stays(rank: Rank) -> None:
    assert rank.ask("1", "a")
    assert rank.ask("2", "b")
    rank.cache.leave("2")
    assert rank.ask("3", "c")
    assert rank.names == "ac"


def test_who_finds_no_room_waits_for_it_in_turn(rank: Rank) -> None:
    assert rank.ask("1", "ab")
    assert not rank.ask("2", "cd")
    assert not rank.ask("3", "a")
    rank.cache.leave("1")
    assert rank.settle() == ["2"]
    assert rank.names == "cd"
    rank.cache.leave("2")
    assert rank.settle() == ["3"]


def test_two_requests_load_one_lora_once(rank: Rank) -> None:
    assert rank.ask("1", "a")
    assert rank.ask("2", "a")
    assert rank.cache.numbers("1") == rank.cache.numbers("2")


def test_a_file_that_changed_is_another_lora(rank: Rank) -> None:
    assert rank.ask("1", "a")
    (rank.folder / "a.safetensors").write_bytes(b"changed")
    assert rank.ask("2", "a")
    assert rank.cache.numbers("1") != rank.cache.numbers("2")


def test_a_lora_for_another_target_is_another_lora(rank: Rank) -> None:
    choices = [LoraChoice("a"), LoraChoice("a", 0.5, "transformer_2")]
    rank.cache.wait("1", rank.cache.find(chosen(choices)))
    assert rank.settle() == ["1"]
    assert len(set(rank.cache.numbers("1"))) == 2


def loads(folder: Path, ranks: int) -> tuple[AdapterCache, int]:
    """A cache that waits for the ranks to read LoRA a, and the number of the load."""
    (folder / "a.safetensors").touch()
    cache = AdapterCache({"lora": str(folder)}, capacity=2, ranks=ranks)
    cache.wait("1", cache.find(chosen([LoraChoice("a")])))
    _, (load,) = cache.orders()
    return cache, load.number


def test_ranks_that_read_different_files_end_the_request(tmp_path: Path) -> None:
    cache, number = loads(tmp_path, ranks=2)
    cache.reported(AdapterRead(number=number, rank=0, digest="x"))
    failed = cache.reported(AdapterRead(number=number, rank=1, digest="y"))
    assert "is not the same file for all ranks" in failed["1"].message


def test_ranks_that_read_equal_files_agree(tmp_path: Path) -> None:
    cache, number = loads(tmp_path, ranks=2)
    for rank in range(2):
        assert not cache.reported(AdapterRead(number=number, rank=rank, digest="x"))
    assert cache.take_ready() == ["1"]


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    """As on another host, where times and inodes differ."""
    digests = []
    for host in ("a", "b", "c"):
        folder = tmp_path / host / "ink"
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        (folder / "adapter_config.json").write_bytes(b"{}" if host != "c" else b"{ }")
        os.utime(folder / "adapter_model.safetensors", (0, len(digests)))
        digests.append(LoraFolder(folder.parent).find("ink").digest)
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_request_ends_when_one_rank_fails_and_all_have_reported(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    cache = AdapterCache({"lora": str(tmp_path)}, capacity=2, ranks=2)
    cache.wait("1", cache.find(chosen([LoraChoice("a")])))
    assert cache.take_ready() == []
    _, (load,) = cache.orders()
    failure = WireError(code="invalid_value", message="no")
    assert cache.reported(AdapterRead(number=load.number, rank=1, error=failure)) == {}
    assert cache.reported(AdapterRead(number=load.number, rank=0)) == {"1": failure}
    cache.leave("1")
    assert cache.orders() == ((load.number,), ())


def test_a_folder_with_several_files_must_have_one_that_is_named_as_peft_or_diffusers_do(
    rank: Rank,
) -> None:
    folder = rank.folder / "f"
    folder.mkdir()
    for name in ("x", "y"):
        (folder / f"{name}.safetensors").touch()
    with pytest.raises(InvalidRequest, match=r"not x\.safetensors, y\.safetensors"):
        rank.cache.find(chosen([LoraChoice("f")]))
    (folder / "adapter_model.safetensors").touch()
    assert rank.cache.find(chosen([LoraChoice("f")]))


@pytest.mark.parametrize(
    "name", ["e", "../a", "a.safetensors", "/etc/passwd", "", ".", "..", "x/a", "a/"]
)
def test_a_name_that_is_not_in_the_folder_is_refused(rank: Rank, name: str) -> None:
    with pytest.raises(InvalidRequest, match="available: a, b, c, d"):
        LoraFolder(rank.folder).find(name)
    with pytest.raises(InvalidRequest, match="available: a, b, c, d" if name else "must be NAME"):
        rank.cache.find(chosen([LoraChoice(name)]))


def test_files_whose_names_are_no_text_are_not_loras(rank: Rank) -> None:
    for name in (b"\xff.safetensors", b"f/\xff.safetensors"):
        path = Path(os.fsdecode(os.fsencode(rank.folder) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert LoraFolder(rank.folder).names() == ["a", "b", "c", "d"]
    with pytest.raises(InvalidRequest, match=r"exactly one safetensors file, not none"):
        rank.cache.find(chosen([LoraChoice("f")]))


def test_a_folder_that_is_gone_has_no_loras(rank: Rank) -> None:
    folder = LoraFolder(rank.folder)
    shutil.rmtree(rank.folder)
    assert folder.names() == []
    with pytest.raises(InvalidRequest, match="available: none"):
        rank.cache.find(chosen([LoraChoice("a")]))


def test_a_link_out_of_the_folder_is_refused(
    rank: Rank, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.safetensors"
    outside.touch()
    (rank.folder / "link.safetensors").symlink_to(outside)
    with pytest.raises(InvalidRequest, match="is outside of"):
        rank.cache.find(chosen([LoraChoice("link")]))


def test_clients_are_not_told_where_the_folder_is(rank: Rank) -> None:
    (rank.folder / "link.safetensors").symlink_to("/x")
    (rank.folder / "loop.safetensors").symlink_to("loop.safetensors")
    for name in ("link", "loop", "a" * 10_000, "nothing"):
        with pytest.raises(InvalidRequest) as refused:
            rank.cache.find(chosen([LoraChoice(name)]))
        assert str(rank.folder) not in str(refused.value)


def test_without_a_folder_there_are_no_loras() -> None:
    cache = AdapterCache({}, capacity=2, ranks=1)
    assert cache.find(chosen([])) == ()
    with pytest.raises(InvalidRequest, match="lora_dir"):
        cache.find(chosen([LoraChoice("a")]))


# -- bytes


def sized(folder: Path, most_bytes: int, **sizes: int) -> AdapterCache:
    for name, size in sizes.items():
        (folder / f"{name}.safetensors").write_bytes(bytes(size))
    cache = AdapterCache({"lora": str(folder)}, capacity=8, ranks=2)
    cache.most_bytes = most_bytes
    return cache


def take(cache: AdapterCache, request_id: str, names: str, size: int = 0) -> tuple[bool, list[int]]:
    """Whether it can run, with ranks that read at once; and the numbers that are unloaded."""
    cache.wait(request_id, cache.find(chosen([LoraChoice(name) for name in names])))
    cache.take_ready()
    unload, load = cache.orders()
    for order in load:
        for rank in range(2):
            cache.reported(AdapterRead(number=order.number, rank=rank, digest="x", size=size))
    return request_id in cache.take_ready() or request_id in cache._held, [*unload]


def test_the_least_recently_used_goes_where_bytes_are_too_many(tmp_path: Path) -> None:
    cache = sized(tmp_path, 100, a=40, b=40, c=40)
    for request_id, name in enumerate("ab"):
        assert take(cache, str(request_id), name, 40) == (True, [])
        cache.leave(str(request_id))
    assert take(cache, "2", "c", 40) == (True, [0])


def test_a_lora_waits_for_the_bytes_of_those_in_use(tmp_path: Path) -> None:
    cache = sized(tmp_path, 100, a=70, b=70)
    assert take(cache, "1", "a", 70) == (True, [])
    assert take(cache, "2", "b", 70) == (False, [])
    cache.leave("1")
    assert cache.take_ready() == []
    assert [order.name for order in cache.orders()[1]] == ["b"]


def test_what_takes_more_than_its_file_has_others_unloaded(tmp_path: Path) -> None:
    """Such as numbers of 8 bits in a file."""
    cache = sized(tmp_path, 100, a=40, b=40)
    assert take(cache, "1", "a", 40) == (True, [])
    cache.leave("1")
    assert take(cache, "2", "b", 80) == (True, [])
    assert cache.orders()[0] == (0,)
    cache.leave("2")
    assert not cache.has_orders


def test_a_request_never_waits_for_bytes_that_only_it_takes(tmp_path: Path) -> None:
    cache = sized(tmp_path, 100, a=40, b=40)
    assert take(cache, "1", "a", 80) == (True, [])
    cache.leave("1")
    assert take(cache, "2", "ab", 80) == (True, [])


def test_loras_that_never_fit_are_refused_with_their_size(tmp_path: Path) -> None:
    cache = sized(tmp_path, 100, a=60, b=60)
    with pytest.raises(InvalidRequest, match=r"lora='a, b': takes 1.2e-07 GB.*max_lora_gb"):
        cache.find(chosen([LoraChoice("a"), LoraChoice("b")]))


def test_a_control_that_the_model_has_is_looked_for_in_no_folder(rank: Rank) -> None:
    rank.cache.of_model = ("controlnet",)
    controlled = SamplingParams(lora=(LoraChoice("a"),), control=({"name": "controlnet"},))
    assert [version.name for version in rank.cache.find(controlled)] == ["a"]
    with pytest.raises(InvalidRequest, match="without control_dir"):
        rank.cache.find(SamplingParams(control=({"name": "canny"},)))


def test_loras_and_controls_share_places_and_bytes(tmp_path: Path) -> None:
    for kind, size in (("lora", 400), ("control", 700)):
        (tmp_path / kind).mkdir()
        for name in "ab":
            (tmp_path / kind / f"{name}.safetensors").write_bytes(bytes(size))
    folders = {"lora": str(tmp_path / "lora"), "control": str(tmp_path / "control")}
    cache = AdapterCache(folders, capacity=2, ranks=1)  # type: ignore[arg-type]
    cache.most_bytes = 1200
    both = SamplingParams(lora=(LoraChoice("a"),), control=(ControlChoice("a"),))
    lora, control = cache.find(both)
    assert (lora.kind, control.kind, lora == control) == ("lora", "control", False)
    cache.wait("1", (lora, control))
    assert [(load.kind, load.name) for load in cache.orders()[1]] == [
        ("lora", "a"),
        ("control", "a"),
    ]
    with pytest.raises(InvalidRequest, match=r"control='a, b': takes 1\.4e-06 GB, more than"):
        cache.find(SamplingParams(control=(ControlChoice("a"), ControlChoice("b"))))
    with pytest.raises(InvalidRequest, match="must be at most 2 LoRAs and controls"):
        cache.find(SamplingParams(lora=both.lora, control=(ControlChoice("a"), ControlChoice("b"))))


def test_controls_without_a_folder_are_refused() -> None:
    cache = AdapterCache({"lora": None, "control": None}, capacity=2, ranks=1)
    with pytest.raises(InvalidRequest, match="the server was started without control_dir"):
        cache.find(SamplingParams(control=(ControlChoice("a"),)))
