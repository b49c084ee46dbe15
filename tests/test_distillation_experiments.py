"""tlutils.distillation_experiments: what the grids of `distillation` compare, and that choices stay apart from what is reported."""

from dataclasses import replace

import pytest
import torch

from tlutils import compression, distillation, experiments, report, shapes, training
from tlutils import distillation_experiments as de


def stored(name):
    if not report.exists("lab", name):
        pytest.skip(f"{name} is not recorded yet")
    return report.load("lab", name)


@pytest.fixture
def brief(monkeypatch):
    """The pairs, trained for a few steps only."""
    for name, pair in de.PAIRS.items():
        monkeypatch.setitem(de.PAIRS, name, replace(pair, labels=2, steps=8, teacher_steps=4, views=2))
    monkeypatch.setattr(de, "UNLABELLED", 160)
    monkeypatch.setattr(de, "one_thread", lambda threads: None)
    de.classroom.cache_clear()
    yield
    de.classroom.cache_clear()


# ---------------------------------------------------------------------------- what is compared
def test_what_is_chosen_and_what_is_reported_never_meet():
    assert not set(de.DEV_SEEDS) & set(de.SEEDS) and len(de.SEEDS) >= 5
    assert not set(shapes.DEV8.classes) & set(shapes.TARGET10.classes)
    assert {job.args[0] for job in de.kd_rates()} == set(de.PAIRS) and all(job.args[2] in de.DEV_SEEDS for job in de.kd_rates())
    for grid in (de.kd_shapes, de.kd_text, de.kd_words, de.kd_cost):
        assert len(grid()) >= 5 and all(job.args[0] in de.SEEDS for job in grid())


def test_every_method_was_tried_at_as_many_rates():
    tried = stored("kd_rates").groupby(["pair", "method"]).size()
    assert tried.nunique() == 1 and len(tried) == len(de.PAIRS) * len(de.KINDS)


def test_chosen_rates_are_those_of_the_sweep():
    sweep = stored("kd_rates").groupby(["pair", "method", "rate"])["accuracy"].mean()
    for name, kinds in de.CHOSEN.items():
        for kind, rate in kinds.items():
            assert sweep[name, kind].idxmax() == rate, (name, kind)


@pytest.mark.parametrize("name", de.LAB)
def test_stored_grids_are_current(name):
    stored(name)
    assert experiments.is_current(name), f"run python -m tlutils.experiments {name}, or --verify it"


# ---------------------------------------------------------------------------- networks
def test_the_students_are_small_and_the_same_for_all_methods():
    teacher, student = experiments.zoo.load("resnet-mini").backbone, de.micro(3).backbone
    assert compression.parameters(student) < 0.3 * compression.parameters(teacher)
    assert list(dict(student.stages.named_children())) == list(dict(teacher.stages.named_children()))
    for made in (de.micro, de.short_bert):
        a, b, c = (made(seed).backbone.state_dict() for seed in (3, 3, 4))
        assert all(torch.equal(a[key], b[key]) for key in a) and any(not torch.equal(a[key], c[key]) for key in a)
    assert compression.parameters(de.short_bert(0).backbone) < 0.2 * compression.parameters(experiments.zoo.load("roberta-mini").backbone)


def test_a_narrow_network_of_the_full_width_is_resnet_mini():
    full = de.micro(0, (16, 32, 64)).backbone
    full.load_state_dict(experiments.zoo.load("resnet-mini").backbone.state_dict())


def test_word_means_reads_what_there_is_and_not_its_order():
    body = de.word_means(0).backbone
    tokens = torch.tensor([[2, 10, 11, 3, 0], [2, 11, 10, 3, 0]])
    said = body(torch.cat([tokens, torch.zeros(2, 3, dtype=torch.int64)], 1))
    torch.testing.assert_close(said[0], said[1])
    torch.testing.assert_close(said, body(tokens))
    assert body(torch.zeros(1, 3, dtype=torch.int64)).isfinite().all()


def test_left_out_words_leave_no_hole_and_marks_stay():
    tokens = torch.randint(5, 100, (400, 12), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, 8], tokens[:, 9:] = 2, 3, 0
    cut = de.without_words(tokens, 0.3, torch.Generator().manual_seed(1))
    assert cut.shape == tokens.shape and (cut[:, 0] == 2).all() and ((cut == 3).sum(1) == 1).all()
    full = (cut != 0).to(torch.int8)
    assert (full.diff(dim=1) <= 0).all()
    left = (full.sum(1) - 2).double().mean() / 7
    assert abs(left - 0.7) < 0.03
    kept = [[int(t) for t in row if t >= 5] for row in cut]
    whole = [[int(t) for t in row if t >= 5] for row in tokens]
    assert all(iter_in_order(few, many) for few, many in zip(kept, whole, strict=True))
    assert torch.equal(de.without_words(tokens, 0.0, torch.Generator()), tokens)


def iter_in_order(few, many):
    rest = iter(many)
    return all(word in rest for word in few)


# ---------------------------------------------------------------------------- runs
@pytest.mark.parametrize("name", ["shapes", "words"])
def test_teacher_and_student_know_the_same_views(brief, name):
    room = de.classroom(name, 100)
    n = len(room.x) // 2
    assert torch.equal(room.y[:n], room.y[n:]) and not torch.equal(room.x[:n], room.x[n:])
    torch.testing.assert_close(training.predict(room.teacher, room.x), room.logits)


def test_asking_the_teacher_beforehand_is_asking_it_in_every_step(brief):
    room, way = de.classroom("shapes", 100), de.method("shapes", "taught")
    stored_answers, student = way.fit(room), room.student()
    distillation.distil(student, room.teacher, (room.x, room.y), temperature=de.TEMPERATURE, weight=de.WEIGHT, lr=way.rate, seed=100,
                        batch_size=room.pair.batch_size, **room.pair.options(room.pair.steps))
    torch.testing.assert_close(training.predict(student, room.x_test), training.predict(stored_answers, room.x_test), rtol=1e-3, atol=1e-3)


def test_no_label_reaches_a_blind_student(brief):
    room, way = de.classroom("words", 100), de.method("words", "taught", weight=1.0)
    a, b = way.fit(room), way.fit(room, y=torch.zeros_like(room.y))
    assert torch.equal(training.predict(a, room.x_test), training.predict(b, room.x_test))


def test_altered_answers_keep_what_they_should(brief):
    room = de.classroom("words", 100)
    told = de.altered(room)
    soft = distillation.entropy(room.logits, temperature=de.TEMPERATURE)
    assert distillation.entropy(told["same entropy"], temperature=de.TEMPERATURE) == pytest.approx(soft, abs=1e-3)
    assert distillation.entropy(told["shuffled"], temperature=de.TEMPERATURE) == pytest.approx(soft, abs=1e-5)
    assert (told["same entropy"].argmax(1) == room.y).all()


def test_rows_of_shapes(brief):
    rows = de.shapes_run(100, only=("alone", "hints, then taught", "new pictures, no labels"))
    assert [row["method"] for row in rows] == ["teacher", "alone", "hints, then taught", "new pictures, no labels"]
    assert all(0 <= row[key] <= 1 for row in rows for key in ("accuracy", "train_accuracy", "agreement", "train_agreement"))
    assert rows[0]["agreement"] == 1 and rows[2]["weight"] == de.WEIGHT and rows[3]["weight"] == 1


def test_rows_of_words(brief):
    rows = de.words_run(100, parts=("pair", "dark", "unlabelled"))
    assert {row["part"] for row in rows} == {"pair", "dark", "unlabelled"} and len(rows) == 4 + 3 + 4
    assert de.words_run(100, parts=("pair",)) == rows[:4]
    settings = {(row["temperature"], row["weight"]) for row in de.words_run(100, parts=("settings",))[1:]}
    assert settings == {(t, w) for t in de.TEMPERATURES for w in de.WEIGHTS_TRIED}


def test_rows_of_text(brief):
    assert [row["method"] for row in de.text_run(100)] == ["teacher", *de.KINDS]


def test_cost_counts_bits(brief):
    rows = {row["method"]: row for row in de.cost_run(100, rounds=1)}
    assert rows["teacher, weights"]["bytes"] < 0.5 * rows["teacher, 32"]["bytes"]
    assert abs(rows["vgg-mini, weights"]["bytes"] / rows["vgg-mini, 32"]["bytes"] - 1) < 0.02 and rows["vgg-mini, 32"]["accuracy"] is None
    assert rows["taught, 32"]["parameters"] < 0.2 * rows["teacher, 32"]["parameters"]


def test_it_has_no_real_experiment():
    with pytest.raises(KeyError, match="no real experiment"):
        de.provenance("x", [])
