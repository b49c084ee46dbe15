"""tlutils.nas_benchmark: tasks that ask what they say, a log that is gone on from, a table that searches can use."""

import gzip
import json

import pytest
import torch

from tlutils import nas, nas_benchmark, paths
from tlutils.nas_cells import BENCHMARK_SPACE, Cell

SMALL = BENCHMARK_SPACE.cells(1) + BENCHMARK_SPACE.cells(2)


def row(cell, task="shapes", seed=0):
    return {"task": task, "cell": str(cell), "seed": seed, "accuracy": 0.1 + str(cell).count("sep3") / 10, "parameters": 5, "seconds": 1.0}


class Recorder:
    def __init__(self, most=10**6):
        self.calls, self.most = [], most

    def __call__(self, cell, task, seed):
        if len(self.calls) == self.most:
            raise KeyboardInterrupt
        self.calls.append((task, str(cell), seed))
        return row(cell, task, seed)


def test_tasks_have_classes_in_turn_and_repeat():
    for task, (classes, _) in nas_benchmark.TASKS.items():
        x, y = nas_benchmark.pictures(task, 24, seed=5)
        assert x.shape == (24, 3, 32, 32) and torch.bincount(y).tolist() == [24 // classes] * classes
        nas_benchmark.pictures.cache_clear()
        assert torch.equal(nas_benchmark.pictures(task, 24, seed=5)[0], x)
        assert not torch.equal(nas_benchmark.pictures(task, 24, seed=6)[0], x)
    with pytest.raises(ValueError, match="task: 'shape' is unknown; did you mean 'shapes'"):
        nas_benchmark.pictures("shape", 24, 5)


def test_a_cell_is_trained_alike_each_time(monkeypatch):
    monkeypatch.setattr(nas_benchmark, "TRAINING", {"steps": 3, "lr": 1e-2, "batch_size": 8})
    monkeypatch.setattr(nas_benchmark, "TRAIN", 32)
    monkeypatch.setattr(nas_benchmark, "TEST", 64)
    cell = SMALL[40]
    before = torch.get_rng_state()
    first, second = (nas_benchmark.train_cell(cell, "textures", seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert (first["task"], first["cell"], first["seed"]) == ("textures", str(cell), 1) and 0 <= first["accuracy"] <= 1
    assert first["parameters"] > 1000


def test_the_order_of_the_jobs():
    jobs = [(task, str(cell), seed) for task, cell, seed in nas_benchmark.jobs({})]
    repeated = {job for job in jobs if jobs.count(job) > 1}
    assert {job[2] for job in repeated} <= {1}                       # drawn at random, and among the best: trained once
    assert jobs[:170] == [("shapes", str(cell), 0) for cell in SMALL]
    assert {job[2] for job in jobs[170:200]} == {1}
    fewer = {str(cell) for cell in nas_benchmark.FEWER.cells(3)}
    assert {job[1] for job in jobs[200:200 + len(fewer)]} == fewer and len(fewer) == 486
    assert {job[0::2] for job in jobs[-260:]} == {("shapes", 1)}
    assert {job[1] for job in jobs[200:2760]} == {str(cell) for cell in BENCHMARK_SPACE.cells(3)}
    best = SMALL[77]
    done = {("shapes", str(best), 0): {"accuracy": 0.9}}
    assert [job for job in nas_benchmark.jobs(done)][-200] == ("shapes", best, 1)


def test_training_goes_on_from_the_log(tmp_path):
    file, first, second = tmp_path / "log.jsonl", Recorder(most=7), Recorder(most=5)
    with pytest.raises(KeyboardInterrupt):
        nas_benchmark.run(60, file, train=first)
    with file.open("a") as log:
        log.write('{"task": "shapes", "ce')                    # killed in the middle of a line
    with pytest.raises(KeyboardInterrupt):
        nas_benchmark.run(60, file, train=second)
    assert [call[1] for call in first.calls + second.calls] == [str(cell) for cell in SMALL[:12]]
    rows = nas_benchmark.read_log(file)
    assert list(rows) == first.calls + second.calls
    late = Recorder()
    assert nas_benchmark.run(0, file, train=late) > 2700 and late.calls == []        # no time left: nothing is trained


def test_several_processes_share_the_work(tmp_path):
    parts = [Recorder(most=6), Recorder(most=6)]
    for number, part in enumerate(parts):
        with pytest.raises(KeyboardInterrupt):
            nas_benchmark.run(60, tmp_path / "log.jsonl", part=number, parts=2, train=part)
    assert [call[1] for part in parts for call in part.calls] == [str(cell) for cell in SMALL[:12:2] + SMALL[1:12:2]]


@pytest.fixture
def table(tmp_path):
    rows = [row(cell) for cell in SMALL] + [row(SMALL[0], seed=1), row(SMALL[3], task="textures")]
    return nas_benchmark.load(nas_benchmark.store(rows[::-1], tmp_path / "table.json.gz"))


def test_what_is_stored_is_loaded_with_its_card(table, tmp_path):
    card = table.attrs["card"]
    assert len(table) == card["rows"] == 172 and card["cells_missing"] == 2560
    assert list(table.columns) == ["task", "cell", "seed", "accuracy", "parameters", "seconds"]
    assert card["training"] == nas_benchmark.TRAINING and {"versions", "hardware", "date", "code"} <= set(card)
    assert table["cell"].map(lambda text: str(Cell.parse(text).canonical()) == text).all()
    again = nas_benchmark.store([row(cell) for cell in SMALL], tmp_path / "again.json.gz")
    assert set(json.loads(gzip.decompress(again.read_bytes()))) == {"card", "columns"}


def test_a_search_on_the_table(table):
    evaluate = nas_benchmark.lookup(table)
    small = nas_benchmark.Space(BENCHMARK_SPACE.operations, blocks=2, back=1, chained=True)
    trace = nas.random_search(evaluate, small, budget=8)
    assert trace.accuracies == pytest.approx([0.1 + str(cell).count("sep3") / 10 for cell in trace.cells])
    assert evaluate(Cell.parse("h1 sep3 + h1 avg3")) == evaluate(Cell.parse("h1 avg3 + h1 sep3")) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="the benchmark has no .* with seed 0: it holds 170 cells"):
        evaluate(BENCHMARK_SPACE.cells(3)[0])


def test_nothing_to_store_and_nothing_to_load(tmp_path):
    with pytest.raises(ValueError, match="the benchmark is empty"):
        nas_benchmark.store([], tmp_path / "table.json.gz")
    with pytest.raises(FileNotFoundError, match="python -m tlutils.nas_benchmark"):
        nas_benchmark.load(tmp_path / "table.json.gz")


def test_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(nas_benchmark, "log_file", lambda: tmp_path / "log.jsonl")
    monkeypatch.setattr(nas_benchmark, "path", lambda: tmp_path / "table.json.gz")
    nas_benchmark.main(["--seconds", "0", "--part", "0", "2"])
    assert capsys.readouterr().out.startswith("0 trained, ")
    (tmp_path / "log.jsonl").write_text(json.dumps(row(SMALL[0])) + "\n")
    nas_benchmark.main(["--store"])
    assert len(nas_benchmark.load(tmp_path / "table.json.gz")) == 1


@pytest.mark.skipif(not nas_benchmark.path().exists(), reason="the benchmark has not been stored yet")
def test_the_stored_table_is_closed():
    table = nas_benchmark.load()
    cells = set(table.loc[(table["task"] == "shapes") & (table["seed"] == 0), "cell"])
    assert {str(cell) for cell in SMALL} <= cells
    space = BENCHMARK_SPACE if table.attrs["card"]["cells_missing"] == 0 else nas_benchmark.FEWER
    assert {str(cell) for cell in space.cells(3)} <= cells
    assert table["accuracy"].between(0, 1).all() and paths.data_dir() in nas_benchmark.path().parents
    assert table.attrs["card"]["code"] == nas_benchmark.report.code_hash(*nas_benchmark.CODE), "the code behind the benchmark has changed"
