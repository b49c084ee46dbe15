"""tlutils.nas_experiments: searches that are compared fairly, rows that say what was found, choices apart from what is reported."""

import math

import pytest
import torch

from tlutils import evaluation, experiments, nas, nas_benchmark, nas_live, report, shapes
from tlutils import nas_experiments as ne
from tlutils.nas_cells import BENCHMARK_SPACE, Cell
from tlutils.nas_networks import count_parameters

needs_table = pytest.mark.skipif(not nas_benchmark.path().exists(), reason="the benchmark has not been stored yet")


def stored(name):
    if not report.exists("lab", name):
        pytest.skip(f"{name} is not recorded yet")
    return report.load("lab", name)


# ---------------------------------------------------------------------------- what is compared
def test_every_search_gets_the_same_budget_and_seeds():
    jobs = ne.nas_searches()
    assert {job.args[0] for job in jobs} == set(ne.SEARCHES) == set(nas.METHODS) and len(jobs) == 50 * len(ne.SEARCHES)
    assert {job.args[1] for job in jobs} == set(ne.SEEDS) and all("budget" not in job.keywords for job in jobs)
    assert len(BENCHMARK_SPACE.first_level()) + ne.KEEP + 16 * ne.KEEP == ne.BUDGET      # all that PNAS can see
    assert {job.args[1] for job in ne.nas_ablations()} == set(ne.FEW_SEEDS) <= set(ne.SEEDS)


def test_what_is_chosen_and_what_is_reported_never_meet():
    assert not set(ne.DEV_SEEDS) & {*ne.LIVE_SEEDS, *ne.SEEDS}
    assert len(ne.LIVE_SEEDS) >= 5 and set(ne.TUNED) <= set(ne.CONTESTANTS)


@pytest.mark.parametrize("name, chosen", [("nas_source_rates", lambda c, labels: ne.SOURCE_RATE[c]),
                                          ("nas_tune_rates", lambda c, labels: ne.TUNE_RATE[c])])
def test_rates_are_those_that_the_search_chose(name, chosen):
    grid = stored(name)
    for (contestant, labels), rows in grid.groupby(["contestant", "labels"]):
        best = rows.groupby("method")["accuracy"].mean()
        assert best[f"{chosen(contestant, labels):g}"] == best.max(), (contestant, labels)
    assert ne.SOURCE_RATE["random cell"] == ne.SOURCE_RATE["found cell"] and ne.TUNE_RATE["random cell"] == ne.TUNE_RATE["found cell"]


def test_the_contestants_are_equally_large_and_repeat():
    sizes = {name: count_parameters(ne.network(name, 100).backbone) for name in ne.CONTESTANTS}
    assert max(sizes.values()) < 1.1 * min(sizes.values())
    x = torch.rand(2, 3, 32, 32)
    for name in ne.CONTESTANTS:
        one, same = (ne.network(name, 100) for _ in range(2))
        assert torch.equal(one.backbone(one.preprocess(x)), same.backbone(same.preprocess(x))) and not one.backbone.training
    assert len({ne.network("random cell", seed).card["cell"] for seed in ne.LIVE_SEEDS}) > 1
    assert Cell.parse(ne.FOUND) in nas_live.SPACE and str(Cell.parse(ne.FOUND).canonical()) == ne.FOUND


def test_fine_tuning_leaves_the_network_as_it_was(monkeypatch):
    monkeypatch.setattr(ne, "TUNE_STEPS", 2)
    loaded = ne.network("found cell", 0)
    before = {name: value.clone() for name, value in loaded.backbone.state_dict().items()}
    x, y = shapes.TARGET10.draw(1, seed=0)
    accuracy = ne.tuned_accuracy(loaded, x, y, x, y, 1e-2, 0)
    assert 0 <= accuracy <= 1 and all(torch.equal(value, before[name]) for name, value in loaded.backbone.state_dict().items())


# ---------------------------------------------------------------------------- rows
def test_rows_of_a_search_say_what_was_best_and_when_the_goal_was_reached(monkeypatch):
    cells = BENCHMARK_SPACE.cells(2)[:30]
    values = [0.1 + n / 100 for n in range(30)]
    monkeypatch.setattr(ne, "goal", lambda: 0.295)
    monkeypatch.setattr(ne, "_scores", lambda seed: {str(cells[19]): 0.2})
    rows = ne.rows_of(nas.Trace(cells, values), "PNAS", 7)
    assert [row["models"] for row in rows] == [10, 20, 30] and {row["reached"] for row in rows} == {21.0}
    assert [row["accuracy"] for row in rows] == pytest.approx([0.19, 0.29, 0.39])
    assert [row["again"] for row in rows] == [None, 0.2, None] and rows[1]["winner"] == str(cells[19])
    never = ne.rows_of(nas.Trace(cells, [0.1] * 30), "PNAS", 7)
    assert {row["reached"] for row in never} == {None}


@needs_table
def test_a_stored_search_comes_out_again():
    grid = stored("nas_searches")
    again = ne.search_run("PNAS", 101)
    rows = grid[(grid["method"] == "PNAS") & (grid["seed"] == 101)].sort_values("models")
    assert [row["accuracy"] for row in again] == pytest.approx(rows["accuracy"].tolist(), abs=0.02)
    assert all(row["accuracy"] == ne.on_table(Cell.parse(row["winner"])) for row in again)


@needs_table
def test_the_goal_is_the_best_hundredth():
    scores = ne.table().query("task == 'shapes' and seed == 0")["accuracy"]
    assert 0.009 < (scores >= ne.goal()).mean() < 0.011


@needs_table
@pytest.mark.parametrize("variant", ["no progression", "no predictor", "one MLP", "warm from textures", "ranked by new shapes"])
def test_each_ablation_is_a_search_of_its_own(variant):
    rows = ne.ablation_run(variant, 3, budget=35)
    assert [row["models"] for row in rows] == [10, 20, 30] and {row["method"] for row in rows} == {variant}
    first = Cell.parse(rows[0]["winner"])
    assert len(first) == (3 if variant in ("no progression", "ranked by new shapes") else 1)


@needs_table
def test_correlations_are_those_of_larger_cells(monkeypatch):
    monkeypatch.setattr(ne, "KINDS", {"one MLP": (("mlp",), 1)})
    rows = ne.rank_run(100)
    assert [(row["seen"], row["blocks"]) for row in rows] == [(10, 2), (30, 3), (170, 3)]
    assert all(-1 <= row[key] <= 1 for row in rows for key in ("value", "best_tenth"))


# ---------------------------------------------------------------------------- really trained
def test_a_transfer_run_gives_its_rows(monkeypatch):
    monkeypatch.setattr(ne, "PRETRAIN_STEPS", 2)
    monkeypatch.setattr(ne, "TUNE_STEPS", 1)
    monkeypatch.setattr(evaluation, "world", lambda task: lambda labels, seed: (*task.draw(1, seed=seed), *task.draw(1, seed=seed + 1)))
    rows = ne.transfer_run("random cell", 100)
    assert [(row["target"], row["how"], row["labels"]) for row in rows] == [
        ("source", "itself", 0), ("new shapes", "probe", 5), ("new shapes", "probe", 50), ("new shapes", "fine-tuning", 50),
        ("digits", "probe", 10)]
    assert all(0 <= row["accuracy"] <= 1 and row["cell"] for row in rows)


def test_two_processes_found_what_one_found():
    grid = stored("nas_two_processes")
    assert set(grid["method"]) == {"1 process", "2 processes"} and grid["cells"].nunique() == 1 and (grid["value"] > 0).all()
    assert grid.groupby("method")["seed"].nunique().min() >= 5


# ---------------------------------------------------------------------------- the command
def test_the_command_finds_them():
    for name in ne.LAB:
        assert experiments.LAB[name] is ne.LAB[name] and name.startswith("nas_") and len(experiments.current_code(name)) == 16
        assert ne.CODE[name] and all(callable(job) for job in ne.LAB[name]())
    with pytest.raises(ValueError, match="no real experiment"):
        ne.provenance("nas_searches", [])
    assert not math.isnan(ne.QUANTILE)
