"""tlutils.multimodal_experiments: every run gives rows in order, settings were chosen elsewhere, the stored grids are whole."""

import inspect

import pytest
import torch

from tlutils import evaluation, image_tokens, multimodal, report, shapes
from tlutils import multimodal_experiments as experiments


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)


class PerfectPainter:
    """Draws what the caption says: the real scene. Every second picture is left grey if `half`."""

    def __init__(self, half: bool = False):
        self.half = half

    def draw(self, texts, *, seed=0, **settings):
        shape, colour, back = zip(*((shapes.SHAPES.index(w[2]), shapes.COLOURS.index(w[1]), shapes.COLOURS.index(w[5]))
                                    for w in (text.split() for text in texts)))
        scenes = image_tokens.plain_scenes(torch.tensor(shape), torch.tensor(colour), generator=torch.Generator().manual_seed(seed))
        scenes.background = torch.tensor(back)
        x = shapes.render(scenes)
        if self.half:
            x[::2] = 0.5
        return x


def test_what_is_chosen_and_what_is_reported_never_meet():
    assert not set(experiments.SEEDS) & set(experiments.DEV_SEEDS) and len(experiments.SEEDS) >= 5
    seeds = {job.args[0] for job in experiments.dalle_settings()}
    assert seeds == set(experiments.DEV_SEEDS)
    for grid in set(experiments.LAB) - {"dalle_settings"}:
        assert {job.keywords.get("seed", job.args[-1 if grid == "clip_seen" else 0]) for job in experiments.LAB[grid]()} <= set(experiments.SEEDS)


@pytest.mark.parametrize("name", experiments.LAB)
def test_every_grid_names_what_decides_it(name):
    assert report.code_hash(*experiments.CODE[name])
    source = inspect.getsource(experiments.LAB[name])
    run = next(job for job in experiments.LAB[name]()).func.__name__
    assert run in source and f"multimodal_experiments:{run}" in experiments.CODE[name] and name in experiments.WEIGHTS


def test_scenes_are_of_the_split_and_fixed_by_the_seed():
    x, scenes = experiments._scenes(True, 50, 3)
    assert multimodal.held_out(scenes.shape, scenes.colour).all() and torch.equal(x, experiments._scenes(True, 50, 3)[0])
    assert not multimodal.held_out(*(lambda s: (s.shape, s.colour))(experiments._scenes(False, 50, 3)[1])).any()


def test_prompts_have_one_group_for_every_candidate():
    assert all(len(groups) == 16 for groups in experiments.shape_prompts().values())
    for groups in experiments.pair_prompts().values():
        assert len(groups) == 256
        multimodal.tokens([text for group in groups[:3] for text in group])


def test_clip_runs_give_shares():
    rows = experiments.wording_run(1, n=32, wordings=("a ring", "a red ring"))
    assert {r["method"] for r in rows} == {"a ring", "a red ring"} and {r["blur"] for r in rows} == {0.0, 0.5}
    rows += experiments.retrieval_run(1, n=20) + experiments.shift_run(1, kinds=("noise",), strengths=(0.0, 1.0), per_class=2)
    rows += experiments.labels_run(1, budgets=(1,), per_class=2)
    assert all(0 <= r["accuracy"] <= 1 and r["seed"] == 1 for r in rows)
    shifted = {(r["method"], r["strength"]): r["accuracy"] for r in rows if "shift" in r}
    assert shifted["zero-shot", 0.0] > shifted["zero-shot", 1.0]


def test_a_small_clip_sees_so_many_colours_of_each_shape(monkeypatch):
    model, history = experiments.tiny_clip(2, 0, steps=2)
    assert len(history.losses) == 2 and not model.training
    drawn = []
    monkeypatch.setattr(experiments.training, "fit", lambda model, stream, **k: drawn.append(stream))
    experiments.tiny_clip(2, 0, steps=2)
    _, numbers = drawn[0](torch.Generator().manual_seed(0), 400)
    pairs = set()
    for row in numbers.tolist():
        words = [multimodal.WORDS[i] for i in row if i > multimodal.END]
        words = words[:words.index("on")] if "on" in words else words
        pairs |= {(words[-1], w) for w in words if w in shapes.COLOURS}
    assert len(pairs) <= 32 and len({shape for shape, _ in pairs}) == 16


def test_fidelity_counts_what_the_judge_sees(monkeypatch):
    monkeypatch.setattr(experiments, "painter", lambda: PerfectPainter())
    rows = {r["factor"]: r["accuracy"] for r in experiments.settings_run(100, 0.5, 1.0, n=32)}
    assert set(rows) == {"shape", "colour", "background", "shape and colour"} and min(rows.values()) > 0.95
    monkeypatch.setattr(experiments, "painter", lambda: PerfectPainter(half=True))
    rows = {r["factor"]: r["accuracy"] for r in experiments.settings_run(100, 0.5, 1.0, n=32)}
    assert 0.45 < rows["shape and colour"] < 0.6


def test_reranking_takes_the_picture_that_clip_likes_and_lets_another_judge(monkeypatch):
    monkeypatch.setattr(experiments, "painter", lambda: PerfectPainter(half=True))
    rows = experiments.rerank_run(100, False, n=16)
    score = {(r["method"], r["judge"], r["factor"]): r["accuracy"] for r in rows}
    best = f"best of {experiments.BEST_OF} by CLIP"
    assert score["first drawing", "independent", "shape and colour"] < 0.2 < 0.9 < score[best, "independent", "shape and colour"]
    assert score[best, "CLIP", "shape and colour"] > 0.9 and len(rows) == 10


def test_the_spread_is_zero_for_one_drawing_and_grows_with_difference():
    scenes = experiments.drawn_scenes(False, 4, 0)
    for column in ("shape", "colour", "background"):
        getattr(scenes, column)[:] = 1
    same = torch.rand(1, 3, 32, 32).expand(4, -1, -1, -1)
    assert experiments._spread(same, scenes) == 0 < experiments._spread(torch.rand(4, 3, 32, 32), scenes)


# ---------------------------------------------------------------------------- what is stored
@pytest.mark.parametrize("name", [name for name in experiments.LAB if report.exists("lab", name)])
def test_a_stored_grid_has_every_run(name):
    frame = report.load("lab", name)
    assert frame["accuracy"].between(0, 1).all() and frame["seed"].nunique() >= (3 if name == "dalle_settings" else 5)
    keys = [c for c in frame if c not in ("seed", "accuracy", "loss", "spread")]
    assert frame.groupby(keys, dropna=False)["seed"].nunique().min() == frame["seed"].nunique()


@pytest.mark.skipif(not report.exists("lab", "dalle_settings"), reason="not recorded yet")
def test_the_settings_are_the_best_on_the_development_seeds():
    frame = report.load("lab", "dalle_settings")
    frame = frame[frame["factor"] == "shape and colour"]
    table = frame.groupby(["temperature", "guidance"])["accuracy"].mean()
    assert table[experiments.TEMPERATURE, experiments.GUIDANCE] >= table[table.index.get_level_values(0) > 0].max() - 0.03
    assert evaluation.summary(frame, by=("method",))["n"].min() == 3


def test_both_galleries_are_equally_crowded(monkeypatch):
    asked = []
    monkeypatch.setattr(experiments.shapes, "caption", lambda scenes: asked.append(scenes) or ["a ring"] * len(scenes))
    experiments.retrieval_run(0, n=600)
    seen, new = ({*zip(s.shape.tolist(), s.colour.tolist())} for s in asked[::2])
    assert len(seen) == len(new) == 64 and not seen & new
    assert multimodal.held_out(*map(torch.tensor, zip(*new))).all() and not multimodal.held_out(*map(torch.tensor, zip(*seen))).any()
