"""tlutils.nas: searches that count what they train, go on where they stopped, and find what is there to be found."""

import itertools
import json
import math
import multiprocessing
import os
import random
import socket
import sys
import zlib

import numpy as np
import pytest
import torch
from tiny import data, network, weights

from tlutils import nas, processes, training
from tlutils.nas_cells import BENCHMARK_SPACE, Cell, Space
from tlutils.nas_predictors import Predictor

SPACE = BENCHMARK_SPACE
WORTH = {"identity": 0.0, "sep3": 0.10, "avg3": -0.04, "max3": 0.03}
SEARCHES = [nas.pnas, nas.random_search, nas.evolution, nas.local_search, nas.one_shot]


def worth(cell):
    """A made-up accuracy, with a little noise that belongs to the cell."""
    noise = zlib.crc32(str(cell).encode()) / 2**32 - 0.5
    return 0.2 + 0.02 * noise + sum(WORTH[operation] * (1.0 if source >= 0 else 0.4) for block in cell.blocks for source, operation in block)


class Counted:
    """`worth`, counted; stops with an error at the n-th call, if told so."""

    def __init__(self, stop_at=math.inf):
        self.cells, self.stop_at = [], stop_at

    def __call__(self, cell):
        if len(self.cells) >= self.stop_at:
            raise KeyboardInterrupt
        self.cells.append(cell)
        return worth(cell)


def quick(search, evaluate, seed=0, **options):
    if search in (nas.pnas, nas.one_shot):
        options = {"predictor": Predictor(members=2, steps=30, seed=seed), **options}
    return search(evaluate, SPACE, **{"budget": 30, "seed": seed, **options})


# ---------------------------------------------------------------------------- what all searches have in common
@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_trains_different_cells_of_the_space_within_its_budget(search):
    counted = Counted()
    trace = quick(search, counted, seed=1)
    assert trace.cells == counted.cells and len(set(trace.cells)) == len(trace.cells) == 30
    assert all(cell in SPACE and cell == cell.canonical() for cell in trace.cells)
    assert trace.accuracies == [worth(cell) for cell in trace.cells]
    assert (np.diff(trace.best) >= 0).all() and trace.best[-1] == max(trace.accuracies) == worth(trace.winner)


@pytest.mark.parametrize("search", SEARCHES)
def test_the_seed_decides(search):
    one, same, other = (quick(search, worth, seed=seed) for seed in (1, 1, 2))
    assert one == same and one.cells != other.cells


@pytest.mark.parametrize("search", SEARCHES)
def test_interrupted_it_goes_on_and_trains_no_cell_twice(search, tmp_path):
    log, first, second = tmp_path / "folder" / "search.jsonl", Counted(stop_at=17), Counted()
    with pytest.raises(KeyboardInterrupt):
        quick(search, first, log=log)
    with log.open("a") as file:
        file.write('{"cell": "h1 sep3 + h')                    # killed in the middle of a line
    trace = quick(search, second, log=log)
    assert trace == quick(search, worth)
    assert len(first.cells) == 17 and first.cells + second.cells == trace.cells
    third = Counted()
    assert quick(search, third, log=log) == trace and third.cells == []
    assert len([json.loads(line) for line in log.read_text().splitlines()]) == 31


def test_a_log_of_another_search_is_refused(tmp_path):
    log = tmp_path / "search.jsonl"
    quick(nas.random_search, worth, log=log)
    for options in ({"seed": 5}, {"budget": 40}):
        with pytest.raises(ValueError, match="search.jsonl' is of a search with other settings"):
            quick(nas.random_search, worth, log=log, **options)
    with pytest.raises(ValueError, match="other settings"):
        quick(nas.evolution, worth, log=log)


def test_a_space_smaller_than_the_budget_is_searched_whole():
    space = Space(("sep3", "max3"), blocks=2, back=1, chained=True)        # 3 + 12 cells
    for search in SEARCHES:
        trace = search(worth, space, budget=100)
        assert {cell for cell in trace.cells if len(cell) == 2} == set(space.cells()), search.__name__


def test_a_large_space_is_sampled():
    for search in SEARCHES[1:4]:
        trace = search(lambda cell: float(len(cell.unused)), Space(("sep3", "max3"), blocks=4), budget=12)
        assert len(trace.cells) == 12 and all(len(cell) == 4 for cell in trace.cells)


def test_a_trace_knows_when_a_goal_was_reached():
    trace = nas.Trace(SPACE.cells(1)[:4], [0.2, 0.5, 0.4, 0.7])
    assert [trace.models_to(goal) for goal in (0.1, 0.5, 0.6, 0.8)] == [1, 2, 4, math.inf]
    assert trace.best.tolist() == [0.2, 0.5, 0.5, 0.7] and trace.winner == trace.cells[3]


# ---------------------------------------------------------------------------- each search
def test_pnas_goes_up_level_by_level():
    trace = quick(nas.pnas, worth, budget=50)
    sizes = [len(cell) for cell in trace.cells]
    assert sizes == [1] * 10 + [2] * 20 + [3] * 20
    assert set(trace.cells[:10]) == set(SPACE.cells(1))
    assert set(trace.cells[30:]) <= set(SPACE.expand(trace.cells[10:30]))
    assert [len(cell) for cell in quick(nas.pnas, worth, budget=50, keep=8).cells] == [1] * 10 + [2] * 8 + [3] * 8
    assert [len(cell) for cell in quick(nas.pnas, worth, budget=15, keep=8).cells] == [1] * 10 + [2] * 5


def test_pnas_without_its_parts():
    blind = quick(nas.pnas, worth, budget=50, predictor=None)
    assert [len(cell) for cell in blind.cells] == [1] * 10 + [2] * 20 + [3] * 20
    at_once = quick(nas.pnas, worth, budget=50, progression=False)
    assert {len(cell) for cell in at_once.cells} == {3} and len(at_once.cells) == 50
    assert np.mean(at_once.accuracies[10:]) > np.mean(at_once.accuracies[:10]) + 0.05
    elsewhere = Predictor(members=2, steps=40).fit(SPACE.cells(2), [worth(cell) for cell in SPACE.cells(2)])
    assert len(quick(nas.pnas, worth, budget=50, predictor=elsewhere, warm=True).cells) == 50


def test_pnas_beats_random_search():
    seeds = range(3)
    found = {search: np.mean([quick(search, worth, budget=50, seed=seed).best[-1] for seed in seeds]) for search in SEARCHES}
    blind = np.mean([quick(nas.pnas, worth, budget=50, predictor=None, seed=seed).best[-1] for seed in seeds])
    assert found[nas.pnas] > found[nas.random_search] + 0.02 and found[nas.pnas] > blind + 0.02
    assert min(found[nas.evolution], found[nas.local_search], found[nas.one_shot]) > found[nas.random_search]


def test_a_predictor_from_elsewhere_ranks_the_space_as_it_is():
    elsewhere = Predictor(members=2).fit(SPACE.cells(1) + SPACE.cells(2), [worth(cell) for cell in SPACE.cells(1) + SPACE.cells(2)])
    trace = nas.one_shot(worth, SPACE, budget=5, first=0, predictor=elsewhere)
    assert min(trace.accuracies) > np.quantile([worth(cell) for cell in SPACE.cells(3)[::5]], 0.9)


def test_evolution_stays_near_its_parents():
    trace = quick(nas.evolution, worth, budget=30, population=10)
    for number in range(10, 30):
        assert any(cell in trace.cells[:number] for cell in SPACE.neighbours(trace.cells[number]))


def test_local_search_visits_neighbours_of_the_best():
    trace = quick(nas.local_search, worth, budget=25, initial=5)
    start = max(trace.cells[:5], key=worth)
    assert set(trace.cells[5:15]) <= set(SPACE.neighbours(start))


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("do, says", [
    (lambda: nas.pnas(worth, SPACE, budget=9), "budget=9 is smaller than the first level, the 10 cells of one block"),
    (lambda: nas.pnas(worth, SPACE, budget=20, keep=0), "keep=0"),
    (lambda: nas.random_search(worth, SPACE, budget=0), "budget=0"),
    (lambda: nas.evolution(worth, SPACE, budget=20, population=3, sample=5), "sample=5"),
    (lambda: nas.local_search(worth, SPACE, budget=20, initial=0), "initial=0"),
    (lambda: nas.one_shot(worth, SPACE, budget=20, first=30), "first=30"),
    (lambda: nas.one_shot(worth, SPACE, budget=20, first=0), "call fit first"),
    (lambda: nas.random_search(lambda cell: float("nan"), SPACE, budget=3), "evaluate gave nan for the cell h1"),
])
def test_bad_input(do, says):
    with pytest.raises(ValueError, match=says):
        do()


# ---------------------------------------------------------------------------- several processes
def trained(cell):
    """A number that comes out of a training, by `fit`, of a network that belongs to the cell."""
    model = network(zlib.crc32(str(cell).encode()) % 1000)
    training.fit(model, data(16), steps=2, batch_size=8)
    return float(sum(value.double().sum() for value in weights(model).values()))


def half_of_a_pair(rank, port, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    seen = []
    trace = quick(nas.pnas, lambda cell: (seen.append(str(cell)), trained(cell))[1], budget=15, log=folder / "log.jsonl",
                  team=processes.team())
    found = {"trace": [[str(cell), value] for cell, value in zip(trace.cells, trace.accuracies)], "seen": seen}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a fork server")
def test_two_processes_find_what_one_finds(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "accelerate", "pytest", "torch._dynamo"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [context.Process(target=half_of_a_pair, args=(rank, port, tmp_path)) for rank in (0, 1)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(120)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = quick(nas.pnas, trained, budget=15)
    torch.set_num_threads(threads)
    assert first["trace"] == second["trace"] == [[str(cell), value] for cell, value in zip(alone.cells, alone.accuracies)]
    assert abs(len(first["seen"]) - len(second["seen"])) <= 2 and not set(first["seen"]) & set(second["seen"])
    assert sorted(first["seen"] + second["seen"]) == sorted(map(str, alone.cells))
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 16


def test_alone_means_that_fit_sees_no_other_process():
    with processes.alone():
        team = processes.team()
        assert (team.num_processes, team.process_index, team.is_main_process) == (1, 0, True)
        with processes.alone():
            pass
        assert not hasattr(processes.team(), "reduce")
    assert hasattr(processes.team(), "reduce")


def test_proposals_in_any_form_count_once():
    trials = nas.Trials(worth, 5)
    same = [Cell.parse("h1 sep3 + h1 max3"), Cell.parse("h1 max3 + h1 sep3")]
    trials.train(same)
    trials.train(itertools.chain(same, random.Random(0).sample(SPACE.cells(), 20)))
    assert len(trials.trace.cells) == 5 and trials.left == 0


def test_the_beam_may_differ_from_level_to_level():
    assert [len(cell) for cell in quick(nas.pnas, worth, budget=60, keep=(8,)).cells] == [1] * 10 + [2] * 8 + [3] * 42
    assert quick(nas.pnas, worth, budget=26, keep=(8,)).cells == quick(nas.pnas, worth, budget=26, keep=8).cells
    with pytest.raises(ValueError, match=r"keep=\(8, 8\): name 1, one for each level between the first and the last"):
        quick(nas.pnas, worth, budget=60, keep=(8, 8))
    with pytest.raises(ValueError, match=r"keep=\(0,\): at least one cell"):
        quick(nas.pnas, worth, budget=60, keep=(0,))
