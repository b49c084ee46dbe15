"""tlutils.shift_experiments: what the grids of `domain_shift` compare, and that choices stay apart from what is reported."""

import pytest
import torch

from tlutils import experiments, freezing, report, shapes, zoo
from tlutils import finetune as ft
from tlutils import shift_experiments as se


def stored(name):
    if not report.exists("lab", name):
        pytest.skip(f"{name} is not recorded yet")
    return report.load("lab", name)


@pytest.fixture
def probe():
    x, y = shapes.DEV8.draw(4, seed=1)
    return ft.finetune(zoo.load("resnet-mini", "shapes"), x, y, strategy="probe").model


# ---------------------------------------------------------------------------- choices
def test_rates_are_chosen_on_other_shapes_and_other_draws():
    assert all(job.args[2] not in se.SEEDS for job in se.shift_rates())
    assert len(se.SEEDS) >= 5 and {job.args[0] for job in se.shift_rates()} == {*se.WAYS, "tent"}
    assert {len(rates) for rates in (*se.WAY_RATES.values(), se.TENT_RATES)} == {4}, "every way has as many tries"


def test_the_chosen_rates_are_what_the_grid_says():
    table = stored("shift_rates").groupby(["way", "rate"])["accuracy"].mean()
    for way, rate in se.CHOSEN_RATE.items():
        assert table[way].idxmax() == rate, (way, table[way].to_dict())


def test_the_source_is_trained_as_the_book_trains():
    assert se.SOURCE_RATE == experiments.chosen("fine-tuning", se.SOURCE_LABELS)
    assert se.SOURCE_C == experiments.chosen("probe", se.SOURCE_LABELS)


@pytest.mark.parametrize("name", se.LAB)
def test_stored_grids_are_of_the_present_code(name):
    stored(name)
    assert experiments.is_current(name), f"run python -m tlutils.experiments {name}"


def test_draws_never_meet():
    train = shapes.TARGET10.draw(se.POOL, seed=100 * 1000 + se.SOURCE_LABELS)[0]
    unlabelled, test, y = se.target(100, None, 0.0)
    sets = [train, unlabelled, test, shapes.TARGET10.draw(se.POOL, seed=se.CLEAN_SEED + 100)[0], se.few_labels(100, None, 0.0, 5)[0]]
    pictures = torch.cat([part.flatten(1) for part in sets])
    assert len(pictures.unique(dim=0)) == len(pictures) and len(y) == len(test) == 10 * se.POOL


# ---------------------------------------------------------------------------- what learns
@pytest.mark.parametrize("way, moved", [("stem", {"stem"}), ("layer2", {"layer2"}), ("head", {"head"}), ("all", set(se.PARTS)),
                                        ("gradual", set(se.PARTS)), ("gradual upwards", set(se.PARTS))])
def test_only_what_is_named_learns(probe, way, moved):
    x, y = se.few_labels(0, "noise", 0.6, 2, shapes.DEV8)
    with freezing.assert_frozen(probe):
        tuned = se.adapt(probe, x, y, way, lr=1e-3, steps=10)

    def parts(model):
        return dict(model.backbone.stages.named_children()) | {"head": model.head}
    changed = {name for name, part in parts(probe).items()
               if any(not torch.equal(a, b) for a, b in zip(part.state_dict().values(), parts(tuned)[name].state_dict().values()))}
    assert changed == moved and not tuned.training and not any(map(freezing.is_frozen, tuned.modules()))


def test_gradual_begins_at_one_end_and_opens_part_by_part(probe):
    x, y = se.few_labels(0, "noise", 0.6, 2, shapes.DEV8)
    after = {way: se.adapt(probe, x, y, way, lr=1e-3, steps=9) for way in ("gradual", "gradual upwards")}      # every = 1
    # with 9 steps each part opens one step after its neighbour; with 5 the last one never steps
    short = {way: se.adapt(probe, x, y, way, lr=1e-3, steps=4) for way in after}
    stem, head = probe.backbone.stages.stem[0].weight, probe.head.weight
    assert torch.equal(short["gradual"].backbone.stages.stem[0].weight, stem) and not torch.equal(short["gradual"].head.weight, head)
    assert torch.equal(short["gradual upwards"].head.weight, head) and not torch.equal(short["gradual upwards"].backbone.stages.stem[0].weight, stem)
    assert not torch.equal(after["gradual"].backbone.stages.stem[0].weight, stem)


@pytest.mark.parametrize("augment", se.AUGMENTATIONS)
def test_augmentations_keep_the_form_and_repeat(augment):
    x = shapes.DEV8.draw(3, seed=0)[0]
    one, two = (se.AUGMENTATIONS[augment](x.clone(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.shape == x.shape and torch.equal(one, two) and 0 <= one.min() and one.max() <= 1


def test_half_of_the_pictures_keep_their_colour():
    x = shapes.DEV8.draw(25, seed=0)[0]
    grey = se.random_grey(x, torch.Generator().manual_seed(0))
    same = (grey == x).flatten(1).all(1)
    assert 0.35 < same.float().mean() < 0.65
    colourless = grey[~same]
    assert torch.allclose(colourless[:, 0], colourless[:, 1]) and torch.allclose(colourless[:, 0], colourless[:, 2])


# ---------------------------------------------------------------------------- rows, and bad input
def test_a_run_of_repairs_gives_its_rows(monkeypatch, probe):
    monkeypatch.setattr(se, "source_model", lambda *a, **k: wide(probe))
    rows = se.repair_run("night", 0.6, 0, budgets=(5,))
    assert [r["method"] for r in rows] == ["clean", "nothing", "AdaBN", "TENT", "all", "all + AdaBN", "gradual", "gradual + AdaBN"]
    assert {r["labels"] for r in rows} == {0, 5} and all(0 <= r["accuracy"] <= 1 for r in rows)


def wide(probe):
    return ft.finetune(zoo.load("resnet-mini", "shapes"), *shapes.TARGET10.draw(5, seed=1), strategy="probe").model


def test_detection_counts_alarms(monkeypatch, probe):
    monkeypatch.setattr(se, "source_model", lambda *a, **k: wide(probe))
    rows = se.detection_run(0, kinds=(None, "noise"), strengths=(0.6,), sizes=(30,), repeats=4)
    found = {(r["method"], r["shift"]): r["value"] for r in rows}
    assert found["MMD", "noise"] == found["domain classifier", "noise"] == 1 and found["MMD", "none"] <= 0.5


@pytest.mark.parametrize("call, words", [
    (lambda: se.target(0, "blur", 1.2), r"strength: must lie in \[0, 1\], got 1.2"),
    (lambda: se.few_labels(0, "night", -0.1, 5), r"strength: must lie in \[0, 1\], got -0.1"),
    (lambda: se.repair_run("noise", 7, 0), r"strength: must lie in \[0, 1\], got 7"),
    (lambda: se.dial_run("probe", 0, kinds=("fog",), strengths=(0.5,)), "kind: must be one of blur, .*; got 'fog'"),
    (lambda: se.source_model(0, how="guess"), "how: must be \"fine-tuned\" or \"probe\", got 'guess'"),
    (lambda: se.provenance("shift_dial", []), "'shift_dial' is no real experiment"),
])
def test_bad_settings_are_refused(monkeypatch, call, words):
    monkeypatch.setattr(se.methods.Train, "run", lambda *a, **k: ft.Run(None, None))       # no training before the complaint
    se.source_model.cache_clear()
    with pytest.raises(ValueError, match=words):
        call()
    se.source_model.cache_clear()


def test_a_way_that_is_none_and_labels_that_are_one_class_are_refused(probe):
    x, y = se.few_labels(0, None, 0.0, 2, shapes.DEV8)
    with pytest.raises(ValueError, match="way: must be one of stem, layer1, .*; got 'layer9'"):
        se.adapt(probe, x, y, "layer9", lr=1e-3)
    with pytest.raises(ValueError, match="all 16 labels are the same class"):
        se.adapt(probe, x, 0 * y, "all", lr=1e-3)
