"""tlutils.history: what a run measured, as a table, as JSON, and compared."""
from __future__ import annotations

import dataclasses
import json

import pytest
from tiny import fitted

from tlutils.history import History

ROWS = [{"step": 2, "loss": 1.5, "lr": 0.1}, {"step": 4, "loss": 0.5, "lr": 0.05, "validation_accuracy": 0.75}]


def history() -> History:
    return History([dict(row) for row in ROWS], [2.0, 1.0, 0.6, 0.4], [0.1, 0.3])


def test_the_last_row_has_its_seconds_and_an_empty_history_has_none():
    assert history().last == {**ROWS[1], "seconds": 0.3}
    assert History().last == {} and History().rows == History().losses == []


def test_the_last_row_is_a_copy():
    found = history()
    found.last["loss"] = 9
    assert found.rows == ROWS


def test_as_a_table():
    frame = history().frame()
    assert list(frame.columns) == ["step", "loss", "lr", "seconds", "validation_accuracy"] and list(frame["seconds"]) == [0.1, 0.3]
    assert frame["validation_accuracy"].isna().tolist() == [True, False]
    assert len(History().frame()) == 0


def test_a_row_without_its_seconds_is_no_table():
    with pytest.raises(ValueError):
        History(ROWS, [], [0.1]).frame()


def test_seconds_do_not_count_when_histories_are_compared():
    slower = dataclasses.replace(history(), seconds=[1.0, 9.0])
    assert slower == history() and history() != dataclasses.replace(history(), losses=[2.0])
    _, first = fitted(evaluate_every=4)
    _, again = fitted(evaluate_every=4)
    assert first == again and first.seconds != again.seconds


def test_json_there_and_back_is_bit_for_bit():
    found = history()
    found.losses[0] = 0.1 + 0.2
    copy = History.from_json(found.to_json())
    assert copy == found and copy.seconds == found.seconds and copy.losses[0] == 0.1 + 0.2
    assert set(json.loads(found.to_json())) == {"rows", "losses", "seconds"}


def test_no_two_histories_share_their_lists():
    one, other = History(), History()
    one.losses.append(1.0)
    assert other.losses == []
