"""tlutils.nas_live: the small search that trains for real, and its command."""

import json

import pytest

from tlutils import nas_benchmark, nas_live


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(nas_benchmark, "TRAIN", 64)
    monkeypatch.setattr(nas_benchmark, "TEST", 64)
    nas_benchmark.pictures.cache_clear()


def test_the_command_says_what_was_found(capsys, tmp_path):
    log = tmp_path / "log.jsonl"
    nas_live.main(["--budget", "23", "--steps", "2", "--log", str(log)])
    said = json.loads(capsys.readouterr().out)
    assert said["processes"] == 1 and said["seconds"] > 0 and len(said["cells"]) == 23
    assert len(nas_live.SPACE.first_level()) == 21 and {text.count(";") for text, _ in said["cells"][21:]} == {1}
    again = nas_live.search(23, steps=2, log=log)              # from the log: nothing is trained
    assert [[str(cell), value] for cell, value in zip(again.cells, again.accuracies)] == said["cells"]


def test_too_small_a_budget():
    with pytest.raises(ValueError, match="budget=5 is smaller than the first level, the 21 cells"):
        nas_live.search(5)
