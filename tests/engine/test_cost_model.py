"""The cost model starts from a formula, follows what is measured, and keeps what it learned."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_gen.messages.plan import BatchKey, Phase
from multimodal_gen.scheduling.cost_model import MAX_KEYS, CostModel
from multimodal_gen.scheduling.row_limits import FIRST_PROOF

KEY = BatchKey(36 + 77, "96x96")


def make(path: Path | None = None, *, memory_bytes: int = 0) -> CostModel:
    return CostModel(parameters=5_000_000, memory_bytes=memory_bytes, device="cpu", path=path)


def learn(cost: CostModel, times: dict[int, float], *, repeat: int = 3) -> None:
    for _ in range(repeat):
        for n, seconds in times.items():
            cost.observe(Phase.DENOISE, KEY, n, seconds)


def test_a_first_estimate_grows_with_the_tokens_of_a_key_and_with_nothing_else() -> None:
    cost = make()
    none, some, twice = (cost.seconds(Phase.DENOISE, BatchKey(n), 1) for n in (0, 113, 226))
    assert 0 < none < some
    assert twice - none == pytest.approx(2 * (some - none))
    assert cost.seconds(Phase.DENOISE, KEY, 1) == some


def test_the_memory_of_a_row_grows_with_the_tokens_of_its_key() -> None:
    cost = make(memory_bytes=4 * 2**20)
    most = max(rows for rows in range(1, 1000) if cost.fits(BatchKey(100), rows))
    assert cost.fits(BatchKey(50), 2 * most)
    assert not cost.fits(BatchKey(200), most // 2 + 1)


def test_keys_of_as_many_tokens_and_another_kind_are_learned_apart() -> None:
    cost, other = make(), BatchKey(KEY.tokens, "64x144")
    learn(cost, {1: 0.3})
    cost.out_of_memory(KEY, 8)
    assert cost.doubt(KEY) == 1 < cost.doubt(other)
    assert cost.fits(other, 8)


def test_before_any_measurement_more_work_takes_longer() -> None:
    cost = make()
    assert cost.doubt(KEY) > 2
    assert 0 < cost.seconds(Phase.DENOISE, KEY, 1) < cost.seconds(Phase.DENOISE, KEY, 8)
    assert cost.seconds(Phase.DENOISE, BatchKey(36), 1) < cost.seconds(Phase.DENOISE, KEY, 1)


def test_a_measured_batch_is_predicted_as_measured() -> None:
    cost = make()
    learn(cost, {1: 0.3, 4: 0.5})
    assert cost.seconds(Phase.DENOISE, KEY, 1) == pytest.approx(0.3)
    assert cost.seconds(Phase.DENOISE, KEY, 4) == pytest.approx(0.5)


def test_row_counts_between_and_beyond_the_measured_follow_their_line() -> None:
    cost = make()
    learn(cost, {1: 0.03, 3: 0.05})
    assert cost.seconds(Phase.DENOISE, KEY, 2) == pytest.approx(0.04)
    assert cost.seconds(Phase.DENOISE, KEY, 8) == pytest.approx(0.10)


def test_encoding_and_decoding_cost_as_much_a_request_whatever_their_number() -> None:
    cost = make()
    cost.observe(Phase.DECODE, KEY, 4, 0.4)
    assert cost.seconds(Phase.DECODE, KEY, 1) == pytest.approx(0.1)
    assert cost.seconds(Phase.DECODE, KEY, 3) == pytest.approx(0.3)


@pytest.mark.parametrize("when", [0, 1, 3])
def test_one_measurement_a_hundred_times_too_long_does_not_stay(when: int) -> None:
    cost = make()
    for i in range(5):
        cost.observe(Phase.DENOISE, KEY, 1, 2.0 if i == when else 0.02)
    assert cost.seconds(Phase.DENOISE, KEY, 1) == pytest.approx(0.02)


def test_a_slow_first_call_of_one_row_count_does_not_count_against_the_others() -> None:
    cost = make()
    cost.observe(Phase.DENOISE, KEY, 1, 2.0)
    learn(cost, {2: 0.03})
    assert cost.seconds(Phase.DENOISE, KEY, 1) <= 0.03
    cost.observe(Phase.DENOISE, KEY, 8, 5.0)
    assert cost.seconds(Phase.DENOISE, KEY, 8) <= 0.03 * 4


def test_a_lasting_change_of_speed_is_followed_within_a_few_measurements() -> None:
    cost = make()
    learn(cost, {2: 0.1}, repeat=20)
    learn(cost, {2: 0.2}, repeat=3)
    assert cost.seconds(Phase.DENOISE, KEY, 2) == pytest.approx(0.2)


def test_a_measurement_that_was_long_not_repeated_is_forgotten() -> None:
    cost = make()
    learn(cost, {8: 9.0, 1: 0.02})
    learn(cost, {1: 0.02}, repeat=60)
    assert cost.seconds(Phase.DENOISE, KEY, 8) <= 0.02 * 8 * 1.01


def test_a_new_key_profits_from_what_other_keys_showed() -> None:
    cost, other = make(), BatchKey(72 + 154)
    before = cost.seconds(Phase.DENOISE, other, 1)
    learn(cost, {1: 5 * cost.seconds(Phase.DENOISE, KEY, 1)})
    assert cost.seconds(Phase.DENOISE, other, 1) == pytest.approx(5 * before)


@given(
    st.dictionaries(st.integers(1, 16), st.lists(st.floats(1e-6, 1e3), min_size=1), min_size=1),
    st.integers(1, 64),
)
def test_predictions_are_positive_and_no_batch_is_faster_than_a_smaller_one(
    measured: dict[int, list[float]], n: int
) -> None:
    cost = make()
    for rows, times in measured.items():
        for seconds in times:
            cost.observe(Phase.DENOISE, KEY, rows, seconds)
    smaller, larger = (cost.seconds(Phase.DENOISE, KEY, rows) for rows in (n, n + 1))
    assert 0 < smaller <= larger * (1 + 1e-9)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_measurement_that_is_none_is_ignored(seconds: float) -> None:
    cost = make()
    cost.observe(Phase.DENOISE, KEY, 1, seconds)
    assert cost.doubt(KEY) > 2


def test_memory_bounds_the_rows_of_a_batch() -> None:
    cost = make(memory_bytes=4 * 2**20)
    assert cost.fits(KEY, 1)
    assert not cost.fits(KEY, 1000)
    assert make(memory_bytes=0).fits(KEY, 1000)


def test_measured_memory_is_believed_instead_of_the_formula() -> None:
    cost, other = make(memory_bytes=2**30), BatchKey(2 * KEY.tokens)
    cost.observe(Phase.DENOISE, KEY, 2, 0.1, peak_bytes=2**27)
    assert cost.fits(KEY, 16)
    assert not cost.fits(KEY, 17)
    assert cost.fits(other, 8)
    assert not cost.fits(other, 9)


def test_memory_that_was_measured_again_and_is_less_counts_for_other_keys_too() -> None:
    cost, other = make(memory_bytes=2**30), BatchKey(2 * KEY.tokens)
    cost.observe(Phase.DENOISE, KEY, 2, 0.1, peak_bytes=2**30)
    assert not cost.fits(other, 2)
    cost.observe(Phase.DENOISE, KEY, 2, 0.1, peak_bytes=2**27)
    assert cost.fits(other, 8)


def test_the_memory_of_a_smaller_batch_does_not_replace_that_of_a_larger() -> None:
    cost = make(memory_bytes=2**30)
    cost.observe(Phase.DENOISE, KEY, 8, 0.1, peak_bytes=2**29)
    cost.observe(Phase.DENOISE, KEY, 1, 0.1, peak_bytes=2**29)
    assert cost.fits(KEY, 16)


def test_only_a_batch_larger_than_any_that_ran_has_untried_memory() -> None:
    cost = make()
    first = cost.untried_bytes(KEY, 2)
    assert first > 0
    cost.observe(Phase.DENOISE, KEY, 2, 0.1)
    assert [cost.untried_bytes(KEY, rows) for rows in (1, 2)] == [0, 0]
    assert cost.untried_bytes(KEY, 4) == 2 * first
    assert cost.untried_bytes(BatchKey(KEY.tokens, "another"), 2) == first


def test_a_failed_allocation_halves_the_rows_for_that_key_only() -> None:
    cost = make()
    cost.out_of_memory(KEY, 8)
    assert cost.fits(KEY, 4)
    assert not cost.fits(KEY, 5)
    assert cost.fits(BatchKey(64), 8)
    cost.out_of_memory(KEY, 4)
    assert not cost.fits(KEY, 3)


def test_rows_at_the_limit_that_run_raise_it_again() -> None:
    cost = make()
    cost.out_of_memory(KEY, 8)
    for _ in range(FIRST_PROOF - 1):
        cost.observe(Phase.DENOISE, KEY, 4, 0.1)
        cost.observe(Phase.DENOISE, KEY, 3, 0.1)  # below the limit, so it shows nothing
    assert not cost.fits(KEY, 5)
    cost.observe(Phase.DENOISE, KEY, 4, 0.1)
    assert cost.fits(KEY, 5)
    assert not cost.fits(KEY, 6)


def test_a_limit_that_failed_again_takes_longer_to_be_raised() -> None:
    cost = make()
    for _ in range(2):
        cost.out_of_memory(KEY, 8)
    for _ in range(FIRST_PROOF):
        cost.observe(Phase.DENOISE, KEY, 2, 0.1)
    assert not cost.fits(KEY, 3)
    for _ in range(FIRST_PROOF):
        cost.observe(Phase.DENOISE, KEY, 2, 0.1)
    assert cost.fits(KEY, 3)


@pytest.mark.parametrize(("memory_bytes", "fits"), [(2**39, False), (2**40, False), (2**41, True)])
def test_a_limit_holds_where_there_is_no_more_memory_than_where_it_was_learned(
    tmp_path: Path, memory_bytes: int, fits: bool
) -> None:
    cost = make(tmp_path / "cost.json", memory_bytes=2**40)
    cost.out_of_memory(KEY, 8)
    cost.save()
    assert make(tmp_path / "cost.json", memory_bytes=memory_bytes).fits(KEY, 8) is fits


def test_what_was_learned_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "cost.json"
    cost = make(path)
    learn(cost, {1: 0.3, 4: 0.5})
    cost.out_of_memory(KEY, 8)
    cost.save()
    again = make(path)
    assert again.doubt(KEY) == 1
    assert again.seconds(Phase.DENOISE, KEY, 4) == pytest.approx(0.5)
    assert not again.fits(KEY, 5)
    assert [file.name for file in path.parent.iterdir()] == ["cost.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b'{"version": 99, "curves": [], "ratios": {}, "row_limits": {}}',
        b'{"version": 2, "curves": [], "ratios": {"denoise": [-1]}, "row_limits": []}',
        b'{"version": 2, "curves": [], "ratios": {}, "row_limits": [[[1, "a"], 0]]}',
        b'{"version": 2, "curves": [], "ratios": {}, "row_limits": [[[-1, "a"], 1]]}',
        b'{"version": 2, "curves": [{"phase": "denoise", "key": [1, "a"], "seconds": {"0": [1]}}],'
        b' "ratios": {}, "row_limits": []}',
    ],
)
def test_a_damaged_file_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cost.json"
    path.write_bytes(content)
    cost = make(path)
    assert cost.doubt(KEY) > 2
    learn(cost, {1: 0.3})
    cost.save()
    assert make(path).doubt(KEY) == 1


def test_a_file_of_the_version_before_is_no_damage_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cost.json"
    path.write_bytes(
        b'{"version": 1, "curves": [{"phase": "denoise", "key": "(1, 113, 1)", "seconds":'
        b' {"1": [9.0]}}], "ratios": {"denoise": [9.0]}, "row_limits": {"(1, 113, 1)": 1}}'
    )
    with caplog.at_level(logging.INFO):
        cost = make(path)
    assert cost.seconds(Phase.DENOISE, KEY, 1) == make().seconds(Phase.DENOISE, KEY, 1)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "version 1" in caplog.text


def test_a_folder_that_can_not_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cost = make(tmp_path / "file" / "cost.json")
    learn(cost, {1: 0.3})
    cost.save()


def test_the_number_of_keys_is_bounded(tmp_path: Path) -> None:
    cost = make(tmp_path / "cost.json")
    for i in range(MAX_KEYS + 10):
        cost.observe(Phase.DENOISE, BatchKey(i + 1), 1, 0.1)
        cost.out_of_memory(BatchKey(i + 1), 8)
    cost.save()
    assert len((tmp_path / "cost.json").read_bytes()) < 100 * MAX_KEYS


# -- what clients are told


def measured(tokens: int, seconds: float, *, times: int = 3) -> CostModel:
    cost = make()
    for _ in range(times):
        cost.observe(Phase.DENOISE, BatchKey(tokens, "picture"), 1, seconds)
    return cost


def test_a_measured_evaluation_is_told_as_measured_whatever_its_kind() -> None:
    assert measured(1000, 0.5).least_seconds(1000, 1) == pytest.approx(0.5)


def test_attention_makes_larger_pictures_take_more_than_in_proportion() -> None:
    cost = measured(8192, 10.0)
    assert cost.least_seconds(16384, 1) > 2.5 * 10.0


def test_what_is_only_guessed_is_told_as_the_least_that_it_may_take() -> None:
    near, far = measured(1000, 0.5).least_seconds(2000, 1), make().least_seconds(2000, 1)
    assert near > 0.9
    assert measured(1000, 0.5).least_seconds(2001, 1) == pytest.approx(near / 2, rel=0.01)
    assert far < make().seconds(Phase.DENOISE, BatchKey(2000), 1)


def test_one_measurement_which_may_be_a_first_call_is_not_believed() -> None:
    assert measured(1000, 40.0, times=1).least_seconds(1000, 1) < 1
