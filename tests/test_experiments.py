"""tlutils.experiments: grids that go on where they stopped, are stamped by the code that made them, stay current."""

import json
from functools import cache, partial

import pytest
import torch

from tlutils import evaluation, experiments, freezing, methods, paths, report, shapes, zoo
from tlutils.experiments import CANDIDATES, DEV_SEEDS, LAB, SEEDS

NAME = "parity"  # the name under which the tests' own little grid runs
ran = []


def job(i, score=0.5):
    ran.append(i)
    return [{"method": "a", "labels": 5, "seed": i, "accuracy": score}]


def failing():
    raise RuntimeError("the power is off")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A data folder of its own; gives a function that sets the jobs of the little grid."""
    weights = paths.data_dir() / "weights"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights").symlink_to(weights, target_is_directory=True)
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setattr(experiments, "chosen", lambda name, labels: 0.01)
    monkeypatch.setattr(zoo, "variants", lambda name: ["half"])
    monkeypatch.setattr(report, "code_hash", cache(report.code_hash))
    ran.clear()

    def with_jobs(*jobs):
        def little():
            """A little grid.

            With a second paragraph.
            """
            return list(jobs)

        monkeypatch.setitem(LAB, NAME, little)

    with_jobs(*(partial(job, i) for i in range(9)))
    return with_jobs


def run():
    experiments.run(NAME, workers=1)


# ---------------------------------------------------------------------------- running
def test_a_run_is_recorded_with_the_code_that_made_it(lab, capsys):
    run()
    frame = report.load("lab", NAME)
    assert list(frame["seed"]) == list(range(9)) and (frame["accuracy"] == 0.5).all()
    card = frame.attrs["card"]
    assert card["what"] == "A little grid." and card["seeds"] == 9 and card["code"] == experiments.current_code(NAME)
    assert experiments.is_current(NAME)
    assert "parity: 9 rows in" in capsys.readouterr().out


def test_a_run_that_was_stopped_goes_on(lab):
    lab(partial(job, 0), partial(job, 1), failing, partial(job, 3))
    with pytest.raises(RuntimeError, match="the power is off"):
        run()
    assert not report.exists("lab", NAME) and ran == [0, 1]
    lab(*(partial(job, i) for i in range(4)))
    run()
    assert ran == [0, 1, 2, 3] and list(report.load("lab", NAME)["seed"]) == [0, 1, 2, 3]


def test_other_code_starts_anew(lab, monkeypatch):
    run()
    monkeypatch.setattr(experiments, "current_code", lambda name: "other")
    assert not experiments.is_current(NAME)
    run()
    assert ran == [*range(9), *range(9)] and report.load("lab", NAME).attrs["card"]["code"] == "other"


def test_code_that_changes_during_a_run_is_not_certified(lab, monkeypatch):
    code = ["before"]

    def edit():
        code[0] = "after"
        return job(0)

    monkeypatch.setattr(experiments, "current_code", lambda name: code[0])
    lab(edit, partial(job, 1))
    run()
    assert report.load("lab", NAME).attrs["card"]["code"] == "before" and not experiments.is_current(NAME)


def test_a_wrong_name_is_refused():
    with pytest.raises(ValueError, match="name: 'why' is no experiment; there are rates, why_transfer"):
        experiments.run("why")


def test_the_command_without_names_says_what_there_is(capsys):
    experiments.main([])
    out = "".join(capsys.readouterr().out.split())
    assert all(name in out for name in (*LAB, *experiments.REAL))


def test_the_command_runs_or_verifies(monkeypatch):
    calls = []
    monkeypatch.setattr(experiments, "run", lambda name, workers: calls.append(("run", name, workers)))
    monkeypatch.setattr(experiments, "verify", lambda name: calls.append(("verify", name)))
    experiments.main(["rates", "speed", "--workers", "3"])
    experiments.main(["--verify", "rates"])
    assert calls == [("run", "rates", 3), ("run", "speed", 3), ("verify", "rates")]


# ---------------------------------------------------------------------------- verifying
def test_a_sample_that_agrees_makes_a_grid_current_again(lab, monkeypatch):
    run()
    rows = report.load("lab", NAME)
    monkeypatch.setattr(experiments, "current_code", lambda name: "refactored")
    lab(*(partial(job, i, 0.52) for i in range(9)))
    ran.clear()
    experiments.verify(NAME)
    assert experiments.is_current(NAME) and len(ran) == 4 and min(ran) >= 3  # not of the longest third
    after = report.load("lab", NAME)
    assert after.equals(rows)
    (note,) = after.attrs["card"]["verified"]
    assert (
        note["code"] == "refactored" and note["jobs"] == 4 and after.attrs["card"]["code"] == rows.attrs["card"]["code"]
    )
    monkeypatch.setattr(experiments, "current_code", lambda name: "again")
    experiments.verify(NAME)
    assert [entry["code"] for entry in report.load("lab", NAME).attrs["card"]["verified"]] == ["refactored", "again"]


@pytest.mark.parametrize(
    "score, seeds, message",
    [
        (0.54, range(9), "stored 0.500, now 0.540; run python -m tlutils.experiments parity"),
        (0.5, range(50, 59), "the stored grid has no run"),
    ],
)
def test_a_sample_that_disagrees_changes_nothing(lab, monkeypatch, score, seeds, message):
    run()
    file = report.path("lab", NAME)
    before = file.read_bytes()
    monkeypatch.setattr(experiments, "current_code", lambda name: "changed")
    lab(*(partial(job, i, score) for i in seeds))
    with pytest.raises(evaluation.SliceDisagrees, match=message):
        experiments.verify(NAME)
    assert file.read_bytes() == before and not experiments.is_current(NAME)


def test_the_code_of_an_experiment_is_everything_that_decides_it(lab, monkeypatch):
    names = ("rates", "layers", "why_transfer", "speed")
    before = {name: experiments.current_code(name) for name in names}
    assert len(set(before.values())) == len(names)

    def changed():
        return {name for name in names if experiments.current_code(name) != before[name]}

    with monkeypatch.context() as other:  # another choice of rates: all that use the choices
        other.setattr(experiments, "chosen", lambda name, labels: 0.02)
        assert changed() == {"why_transfer", "speed"}
    with monkeypatch.context() as other:  # other weights
        load = zoo.load
        other.setattr(
            zoo,
            "load",
            lambda name, weights, **kw: (lambda x: setattr(x, "card", x.card | {"sha256": "0"}) or x)(
                load(name, weights, **kw)
            ),
        )
        assert changed() == set(names)
    seen = []
    with monkeypatch.context() as other:  # other code
        other.setattr(report, "code_hash", lambda *parts: seen.append(parts) or "0")
        assert changed() == set(names)
    for parts, name in zip(seen, names, strict=True):
        assert {
            "shapes",
            "training",
            "loop",
            "methods",
            "finetune",
            f"experiments:{name}",
            "experiments:contestant",
            "experiments:CANDIDATES",
        } <= set(parts)


# ---------------------------------------------------------------------------- contestants and grids
def test_contestants_by_name():
    assert experiments.contestant("pixels", 0.1) == methods.Pixels(0.1)
    assert experiments.contestant("probe", 0.1, None) == methods.Probe(None, C=0.1)
    scratch, tuning = (
        experiments.contestant("scratch", 0.1, "shapes"),
        experiments.contestant("fine-tuning", 0.1, "half"),
    )
    assert scratch.weights is None and scratch.lr == 0.1 and scratch.steps is methods.scratch_steps
    assert tuning.weights == "half" and tuning.steps == experiments.FINETUNE_STEPS
    assert experiments.contestant("fine-tuning", 0.1, steps=7).steps == 7
    assert (scratch.augment, scratch.weight_decay) == (tuning.augment, tuning.weight_decay), "no opponent is kept weak"


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setattr(experiments, "chosen", lambda name, labels: 0.01)


def grid(name):
    """(method name, method, labels, seed, draw) of every job that trains on a draw."""
    return [
        (method, how, j.args[2], j.args[3], j.args[1])
        for j in LAB[name]()
        if j.func is experiments._draw_job
        for method, how in j.args[0].items()
    ]


def test_what_is_chosen_and_what_is_reported_never_meet(settings):
    assert not set(SEEDS) & set(DEV_SEEDS) and len(SEEDS) >= 5
    assert {seed for *_, seed, _ in grid("rates")} == set(DEV_SEEDS)
    for name in ("why_transfer", "digits", "phase", "parity"):
        assert {seed for *_, seed, _ in grid(name)} <= set(SEEDS)
    x, _, x_test, _ = grid("rates")[0][4](1, 0)
    ours, _, ours_test, _ = evaluation.world(shapes.DEV8)(1, 0)
    assert torch.equal(x, ours) and torch.equal(x_test, ours_test), "rates are chosen on the development shapes"
    x, *_ = grid("why_transfer")[0][4](1, 100)
    assert torch.equal(x, evaluation.world(shapes.TARGET10)(1, 100)[0])


def test_rates_try_every_candidate_at_both_budgets(settings):
    found = [(method, labels, seed) for method, _, labels, seed, _ in grid("rates")]
    assert len(found) == 2 * len(DEV_SEEDS) * sum(map(len, CANDIDATES.values()))
    assert {labels for _, labels, _ in found} == {5, 50}


def test_why_transfer_has_every_contestant_at_every_budget_and_seed(settings):
    found = {(method, labels, seed) for method, _, labels, seed, _ in grid("why_transfer")}
    contestants = {"pixels", "random frozen", "probe", "scratch", "fine-tuning"}
    assert found >= {(m, n, s) for m in contestants for n in (1, 2, 5, 10, 20, 50, 200) for s in SEEDS}
    patient = next(how for method, how, *_ in grid("why_transfer") if "ten times" in method)
    assert patient.steps == 10 * methods.scratch_steps(5)


@pytest.mark.parametrize("name, weights, budgets", [("patient", None, (20, 200)), ("patient_tuning", "shapes", (200,))])
def test_the_patient_get_ten_times_the_steps_on_the_same_draws(settings, name, weights, budgets):
    found = [(how.steps, labels, seed) for _, how, labels, seed, _ in grid(name)]
    assert sorted(found) == sorted((10 * methods.scratch_steps(n), n, s) for n in budgets for s in SEEDS)
    assert all(how.weights == weights for _, how, *_ in grid(name))
    x, *_ = grid(name)[0][4](1, 100)
    assert torch.equal(x, evaluation.world(shapes.TARGET10)(1, 100)[0])


@pytest.mark.parametrize("name", ["phase", "parity"])
def test_scratch_trains_at_least_as_long_as_transfer(settings, name):
    def steps(labels, scratch):
        return [
            how.steps(labels) if callable(how.steps) else how.steps
            for _, how, n, *_ in grid(name)
            if isinstance(how, methods.Train) and n == labels and (how.weights is None) == scratch
        ]

    for labels in {n for _, _, n, *_ in grid(name)}:
        if steps(labels, True):
            assert min(steps(labels, True)) >= max(steps(labels, False))


def test_with_plenty_of_labels_all_learn_from_the_same_pictures_for_as_long(settings, monkeypatch):
    jobs = LAB["plenty"]()
    assert {job.args[1] for job in jobs} == set(SEEDS) and len(jobs) == 3 * len(SEEDS)
    assert {(job.keywords["labels"], job.keywords["steps"]) for job in jobs} == {(1000, 6000)}
    started = []
    monkeypatch.setattr(experiments, "tuned", lambda name, labels, weights, **more: started.append((name, weights)) or
                        experiments.contestant(name, 1e-3, weights, steps=2))
    rows = [row for job in jobs[:3] for row in job.func(*job.args, **job.keywords | {"labels": 1, "every": 2})]
    assert started == [("scratch", "shapes"), ("fine-tuning", "shapes"), ("fine-tuning", "colours")]
    assert [row["method"] for row in rows] == ["scratch", "shapes", "colours"] and {row["seed"] for row in rows} == {SEEDS[0]}


@pytest.mark.parametrize("name", LAB)
def test_jobs_can_be_handed_to_other_processes(settings, name):
    try:
        import cloudpickle
    except ImportError:  # joblib brought its own until 1.5
        from joblib.externals import cloudpickle
    for one in LAB[name]()[::17]:
        assert callable(cloudpickle.loads(cloudpickle.dumps(one)))


def test_no_job_of_a_grid_comes_twice(settings):
    for name in ("why_transfer", "digits", "phase", "parity"):
        keys = [
            (method, labels, seed, json.dumps(j.args[4]))
            for j in LAB[name]()
            for method in j.args[0]
            for labels, seed in [j.args[2:4]]
        ]
        assert len(keys) == len(set(keys))


def test_every_grid_says_what_it_asks():
    for experiment in (*LAB.values(), *experiments.REAL.values()):
        assert experiment.__doc__.splitlines()[0].endswith((".", "?"))
    assert not set(LAB) & set(experiments.REAL)


def test_a_job_gives_its_rows_with_its_columns(settings):
    def majority(x, y, x_test, seed):
        return torch.zeros(len(x_test), dtype=torch.long)

    (only,) = experiments._jobs(
        lambda labels: {"majority": majority},
        [2],
        evaluation.world(shapes.TARGET10, test_per_class=1),
        [3],
        target="new",
    )
    (row,) = only()
    assert row.items() >= {"method": "majority", "labels": 2, "seed": 3, "accuracy": 0.1, "target": "new"}.items()


# ---------------------------------------------------------------------------- single runs
def test_a_speed_run_looks_at_the_test_accuracy_on_the_way(settings):
    rows = experiments.speed_run("fine-tuning", 100, labels=1, steps=4, every=2)
    assert [row["step"] for row in rows] == [2, 4]
    assert all(0 <= row["accuracy"] <= 1 and row["loss"] > 0 and row["method"] == "fine-tuning" for row in rows)


@pytest.fixture
def learned(monkeypatch):
    """What `_learn` got and what it changed: (task, seed, stages that changed, what each stage was before)."""
    seen, learn = [], experiments._learn
    experiments._trained_on.cache_clear()

    def spy(loaded, task, seed, steps):
        before = freezing.frozen_snapshot(loaded.backbone)
        model = learn(loaded, task, seed, steps)
        after = freezing.frozen_tensors(loaded.backbone)
        seen.append((task.name, seed, {k.split(".")[1] for k in after if not torch.equal(after[k], before[k])}, before))
        return model

    monkeypatch.setattr(experiments, "_learn", spy)
    yield seen
    experiments._trained_on.cache_clear()


STAGES = ["stem", "layer1", "layer2", "layer3"]


@pytest.mark.parametrize("n, tune", [(0, True), (1, False), (3, False), (3, True), (4, False)])
def test_a_layer_run_copies_n_stages_and_freezes_them_unless_tuned(learned, n, tune):
    (row,) = experiments.layer_run(100, "S", n, tune, steps=2)
    (_, _, changed, before), donor = learned[-1], freezing.frozen_tensors(zoo.load("resnet-mini", "shapes").backbone)
    fresh = freezing.frozen_tensors(zoo.load("resnet-mini", None, seed=100).backbone)
    for name, tensor in before.items():
        origin = donor if name.split(".")[1] in STAGES[:n] else fresh
        assert torch.equal(tensor, origin[name]), name
    assert changed == (set(STAGES) if tune else set(STAGES[n:]))
    assert row["method"] == f"S{n}B{'+' if tune else ''}" and 0 <= row["accuracy"] <= 1


def test_the_control_freezes_the_same_stages_and_asks_for_shapes_that_the_donor_knows(learned):
    for n in (3, 4):
        (row,) = experiments.own_layer_run(100, n, steps=2)
        (task, seed, changed, before), donor = learned[-1], freezing.frozen_tensors(zoo.load("resnet-mini", "shapes").backbone)
        assert (task, seed, changed, row["method"]) == (experiments.OLD10.name, 100, set(STAGES[n:]), f"S{n}A")
        assert all(torch.equal(tensor, donor[name]) for name, tensor in before.items() if name.split(".")[1] in STAGES[:n])
    assert set(experiments.OLD10.classes) <= set(shapes.SHAPES16.classes)


@pytest.mark.parametrize("source, task", [("A", shapes.SHAPES16), ("B", shapes.TARGET10)])
def test_a_donor_is_trained_once_from_another_seed_on_the_task_of_its_name(learned, source, task):
    for n in (2, 1):
        experiments.layer_run(100, source, n, False, steps=2)
    target = shapes.TARGET10.name
    assert [(name, seed) for name, seed, *_ in learned] == [(task.name, 1100), (target, 100), (target, 100)]
    donor = experiments._trained_on(task, 1100, 2)
    assert torch.equal(learned[1][3]["stages.stem.0.weight"], donor.backbone.stages.stem[0].weight)


# ---------------------------------------------------------------------------- what the repository holds
STORED = sorted(file.stem for file in (paths.data_dir() / "results" / "lab").glob("*.json"))


@pytest.mark.parametrize("name", STORED)
def test_a_stored_grid_was_made_by_the_code_as_it_stands(name):
    assert name in LAB, f"data/results/lab/{name}.json is no experiment: remove it"
    assert experiments.is_current(name), (
        f"the code behind data/results/lab/{name}.json has changed. If its results should be the same: "
        f"python -m tlutils.experiments --verify {name}. Otherwise: python -m tlutils.experiments {name}"
    )


def test_a_contestant_that_is_none_is_refused_by_name():
    with pytest.raises(ValueError, match="name: 'finetuning' is no contestant; did you mean 'fine-tuning'"):
        experiments.tuned("finetuning", 5)


@pytest.mark.skipif("rates" not in STORED, reason="the rates are not recorded yet")
@pytest.mark.parametrize("labels", [5, 50])
@pytest.mark.parametrize("name", CANDIDATES)
def test_the_chosen_rate_is_the_best_and_no_better_one_is_in_sight(name, labels):
    sweep = report.load("lab", "rates")
    means = sweep[(sweep["contestant"] == name) & (sweep["labels"] == labels)].groupby("method")["accuracy"].mean()
    means.index = means.index.astype(float)
    means = means.sort_index()
    assert list(means.index) == sorted(CANDIDATES[name])
    best = experiments.chosen(name, labels)
    assert means[best] == means.max()
    if best in (means.index[0], means.index[-1]):  # at the end of the range: only where it makes no difference
        neighbour = means.iloc[1] if best == means.index[0] else means.iloc[-2]
        assert means[best] - neighbour < 0.015, "try candidates beyond this end"


@pytest.mark.skipif("why_transfer" not in STORED, reason="the grid is not recorded yet")
def test_the_stored_curve_shows_what_the_book_says_first():
    frame = report.load("lab", "why_transfer")
    gap = evaluation.difference(frame, "probe", "scratch", 5).scaled(100)
    assert gap.low > 40, "a probe at 5 labels per class lies at least 40 points above scratch"
