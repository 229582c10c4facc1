"""Results: written whole, kept for a time and within a quota, linked to by names nobody guesses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from multimodal_gen.errors import Expired, NotFound
from multimodal_gen.serving.storage.results import Results
from multimodal_gen.serving.storage.steady_clock import MOST_AWAY_S, SteadyClock


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def results(folder: Path, clock: Clock, **options: Any) -> Results:
    return Results(folder, clock=clock, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "results").iterdir()}


def test_what_is_written_is_read_until_its_time_is_over(tmp_path: Path, clock: Clock) -> None:
    kept = results(tmp_path, clock, ttl_s=60)
    kept.write("a.png", b"data")
    clock.now += 59
    assert kept.path("a.png").read_bytes() == b"data"
    clock.now += 2
    with pytest.raises(Expired):
        kept.path("a.png")
    kept.sweep()
    assert not names(tmp_path)


def test_what_lies_in_a_files_place_is_not_the_file(tmp_path: Path, clock: Clock) -> None:
    kept = results(tmp_path, clock)
    kept.write("a.png", b"data")
    kept.path("a.png").unlink()
    os.mkfifo(tmp_path / "results" / "a.png")
    with pytest.raises(Expired):
        kept.path("a.png")


def test_the_oldest_go_when_the_quota_is_full(tmp_path: Path, clock: Clock) -> None:
    kept = results(tmp_path, clock, quota_gb=250e-9)
    for name in ("c", "a", "b"):
        clock.now += 1
        kept.write(name, bytes(100))
    assert names(tmp_path) == {"a", "b"}
    with pytest.raises(Expired):
        kept.path("c")


def test_no_owners_files_go_for_anothers(tmp_path: Path, clock: Clock) -> None:
    kept = results(tmp_path, clock, quota_gb=250e-9)
    kept.write("first", bytes(200), "anne")
    for number in range(5):
        clock.now += 1
        kept.write(f"flood-{number}", bytes(100), "bob")
    following = results(tmp_path, clock, quota_gb=250e-9)
    clock.now += 1
    following.write("flood-5", bytes(100), "bob")
    following.write("unowned", bytes(200))
    for each in (kept, following):
        assert each.path("first").read_bytes() == bytes(200)
    assert not any(owner in name for name in names(tmp_path) for owner in ("anne", "bob"))
    assert len(names(tmp_path)) == 4


def test_what_is_written_again_is_counted_once_and_is_new(tmp_path: Path, clock: Clock) -> None:
    kept = results(tmp_path, clock, quota_gb=250e-9)
    for name in ("a", "b", "a", "c"):
        clock.now += 1
        kept.write(name, bytes(100))
    assert names(tmp_path) == {"a", "c"}


def test_nothing_looks_through_the_folder_once_it_is_open(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        results(tmp_path, clock).add(b"data", f"{number}.png")
    kept = results(tmp_path, clock, quota_gb=61e-9)
    assert len(names(tmp_path)) == 15
    listed = names(tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("the folder was listed")

    with monkeypatch.context() as patch:
        for name in ("scandir", "listdir"):
            patch.setattr(os, name, refuse)
        name = kept.add(b"data", ".png")
        kept.path(name)
        kept.remove(name)
        kept.sweep()
    assert len(listed - names(tmp_path)) == 1


def test_a_file_that_someone_removed_is_gone(tmp_path: Path, clock: Clock) -> None:
    kept = results(tmp_path, clock)
    kept.write("a", b"data")
    kept.path("a").unlink()
    with pytest.raises(Expired):
        kept.path("a")
    kept.write("a", b"new")
    assert kept.path("a").read_bytes() == b"new"


DAY = 86400.0


class System:
    """Clocks of a machine: the one that people set, and the one that only counts."""

    def __init__(self) -> None:
        self.wall = 1.7e9
        self.counted = 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.counted += seconds

    def server(self, folder: Path) -> tuple[SteadyClock, Results]:
        clock = SteadyClock(folder / "clock", lambda: self.wall, lambda: self.counted)
        kept = Results(folder, ttl_s=DAY, clock=clock.now, jump=clock.jump)
        return clock, kept


def is_kept(kept: Results, name: str) -> bool:
    kept.sweep()
    try:
        return kept.path(name).exists()
    except Expired:
        return False


@pytest.mark.parametrize("step", [DAY, -DAY, 400 * DAY])
@pytest.mark.parametrize("running", [True, False])
def test_steps_of_the_systems_clock_neither_delete_results_nor_keep_them(
    tmp_path: Path, step: float, running: bool
) -> None:
    system = System()
    clock, kept = system.server(tmp_path)
    kept.write("a", b"data")
    system.passes(DAY / 2)
    clock.mark()
    system.wall += step
    if not running:
        clock, kept = system.server(tmp_path)
    kept.write("b", b"data")
    system.passes(DAY / 2 - 2 * MOST_AWAY_S)
    assert is_kept(kept, "a")
    clock.mark()
    clock, kept = system.server(tmp_path)
    assert is_kept(kept, "a")
    system.passes(2 * MOST_AWAY_S)
    assert not is_kept(kept, "a")
    assert is_kept(kept, "b")
    system.passes(DAY / 2)
    assert not is_kept(kept, "b")


def test_time_without_a_server_counts_as_far_as_it_is_believed(tmp_path: Path) -> None:
    system = System()
    for away in (MOST_AWAY_S / 2, MOST_AWAY_S, 7 * DAY):
        folder = tmp_path / str(away)
        folder.mkdir()
        clock, kept = system.server(folder)
        kept.write("a", b"data")
        clock.mark()
        system.passes(away)
        _, following = system.server(folder)
        left = DAY - min(away, MOST_AWAY_S)
        system.passes(left - 1)
        assert is_kept(following, "a")
        system.passes(2)
        assert not is_kept(following, "a")


def test_what_is_larger_than_the_quota_is_kept_until_the_next(tmp_path: Path, clock: Clock) -> None:
    kept = results(tmp_path, clock, quota_gb=10e-9)
    kept.write("large", bytes(100))
    clock.now += 1
    kept.write("small", bytes(1))
    assert names(tmp_path) == {"small"}


def test_links_outlive_the_process_and_can_not_be_made_up(tmp_path: Path, clock: Clock) -> None:
    link = results(tmp_path, clock).link(results(tmp_path, clock).add(b"data", ".png"))
    _, files, token, name = link.split("/")
    assert files == "files"
    following = results(tmp_path, clock)
    assert following.linked(token, name).read_bytes() == b"data"
    for wrong in ("", "0" * len(token), "é"):
        with pytest.raises(NotFound):
            following.linked(wrong, name)
    with pytest.raises(NotFound):
        following.linked(token, "other.png")
    clock.now += 10**6
    with pytest.raises(Expired):
        following.linked(token, name)


@pytest.mark.parametrize("name", ["", "../secret", "a/b", ".hidden", "a\0", "a\n", "a" * 300])
def test_names_can_not_leave_the_folder(tmp_path: Path, clock: Clock, name: str) -> None:
    kept = results(tmp_path, clock)
    for use in (kept.path, kept.remove, kept.link):
        with pytest.raises(NotFound):
            use(name)


def test_half_written_files_of_a_killed_server_are_removed(tmp_path: Path, clock: Clock) -> None:
    results(tmp_path, clock)
    (tmp_path / "results" / ".0123.tmp").write_bytes(b"ha")
    results(tmp_path, clock)
    assert not names(tmp_path)


def test_the_secret_is_the_users_own(tmp_path: Path, clock: Clock) -> None:
    results(tmp_path, clock)
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
