"""Results: written whole, kept for a time and within a quota, linked to by names nobody guesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimodal_gen.errors import Expired, NotFound
from multimodal_gen.serving.storage.results import Results


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


def test_the_oldest_go_when_the_quota_is_full(tmp_path: Path, clock: Clock) -> None:
    kept = results(tmp_path, clock, quota_gb=250e-9)
    for name in ("c", "a", "b"):
        clock.now += 1
        kept.write(name, bytes(100))
    assert names(tmp_path) == {"a", "b"}
    with pytest.raises(Expired):
        kept.path("c")


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
