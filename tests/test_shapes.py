"""tlutils.shapes: the world's factors, its shifts, its tasks, and that nothing is ever drawn twice."""

import math
from dataclasses import fields
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils import shapes
from tlutils.shapes import (
    BITS,
    COLOUR16,
    COLOURS,
    DEV8,
    DEV_SHAPES,
    SHAPES,
    SHAPES16,
    SHIFTS,
    SOURCE_SHAPES,
    TARGET10,
    TARGET_SHAPES,
    TEXTURES,
    Parity,
    Scenes,
    Task,
    render,
    sample,
    shift,
    similarity,
)

TASKS = (SHAPES16, TARGET10, DEV8, COLOUR16, *BITS)
PARITY = Parity("parity", SOURCE_SHAPES, 4, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scenes(n, seed=0, **options):
    """n scenes of all shapes and colours."""
    g = generator(seed)
    shape, colour = torch.randint(0, len(SHAPES), (n,), generator=g), torch.randint(0, len(COLOURS), (n,), generator=g)
    return sample(shape, colour, generator=g, **options)


def clean(names, rotations, radius=12.0):
    """White solid shapes in the middle of a navy ground without clutter: every name in every rotation (radians)."""
    index = torch.tensor([SHAPES.index(name) for name in names for _ in rotations])
    n, zero = len(index), torch.zeros(len(index), dtype=torch.long)
    return Scenes(
        shape=index,
        colour=torch.full((n,), COLOURS.index("white")),
        texture=zero,
        background=torch.full((n,), COLOURS.index("navy")),
        radius=torch.full((n,), radius),
        x=torch.full((n,), 16.0),
        y=torch.full((n,), 16.0),
        rotation=torch.tensor([r for _ in names for r in rotations]),
        clutter=zero,
        strokes=torch.zeros(n, 4, 8),
    )


def masks(names, rotations):
    """Soft masks (shapes, rotations, 1024) in [0, 1] of clean renders."""
    pictures = render(clean(names, rotations))
    difference = (pictures - pictures[:, :, :1, :1]).abs().sum(1)  # a corner shows the ground
    return (difference / difference.max()).reshape(len(names), len(rotations), -1)


def fingerprints(images):
    return {image.numpy().tobytes() for image in images}


# ---------------------------------------------------------------------------- the three families
def test_sixteen_source_ten_target_and_eight_development_shapes_without_overlap():
    assert (len(SOURCE_SHAPES), len(TARGET_SHAPES), len(DEV_SHAPES)) == (16, 10, 8)
    assert len({*SOURCE_SHAPES, *TARGET_SHAPES, *DEV_SHAPES}) == 34
    assert len(set(COLOURS)) == 16


def test_every_shape_lies_within_its_field_and_has_a_middling_area():
    atlas = shapes._atlas()[:, 0]
    axis = (torch.arange(64) + 0.5) / 64 * 2.6 - 1.3
    outside = (axis[None] ** 2 + axis[:, None] ** 2) > 1.25**2
    inside = atlas < 0
    assert not (inside & outside).any()
    share = inside.float().mean((1, 2))
    assert share.min() > 0.06 and share.max() < 0.5


@pytest.mark.parametrize(
    "names, bound",
    [(SOURCE_SHAPES, 0.85), (TARGET_SHAPES, 0.85), (DEV_SHAPES, 0.85), (SHAPES, 0.9)],
    ids=["source", "target", "dev", "all"],
)
def test_no_two_shapes_look_alike_in_any_allowed_rotation(names, bound):
    seen = masks(names, torch.linspace(-math.pi / 4, math.pi / 4, 13).tolist())
    for a, b in combinations(range(len(names)), 2):
        one, two = seen[a][:, None], seen[b][None]
        overlap = torch.minimum(one, two).sum(-1) / torch.maximum(one, two).sum(-1)
        assert overlap.max() < bound, (names[a], names[b], float(overlap.max()))


def test_the_nearest_clean_picture_names_every_shape():
    known = torch.linspace(-math.pi / 4, math.pi / 4, 19).tolist()
    asked = torch.linspace(-0.76, 0.76, 8).tolist()
    book, query = masks(SHAPES, known), masks(SHAPES, asked)
    nearest = torch.cdist(query.flatten(0, 1), book.flatten(0, 1)).argmin(1) // len(known)
    truth = torch.arange(len(SHAPES)).repeat_interleave(len(asked))
    wrong = {(SHAPES[t], SHAPES[n]) for t, n in zip(truth.tolist(), nearest.tolist(), strict=True) if t != n}
    assert not wrong


# ---------------------------------------------------------------------------- drawing
@pytest.mark.parametrize("task", [*TASKS, PARITY], ids=lambda t: t.name)
def test_a_draw_is_balanced_and_in_the_promised_form(task):
    x, y = task.draw(3, seed=7)
    n = 3 * len(task.classes)
    assert x.shape == (n, 3, 32, 32) and x.dtype == torch.float32
    assert y.shape == (n,) and y.dtype == torch.int64
    assert x.isfinite().all() and x.min() >= 0 and x.max() <= 1
    assert y.bincount(minlength=len(task.classes)).tolist() == [3] * len(task.classes)


def test_a_draw_depends_on_its_seed_and_on_nothing_else():
    torch.manual_seed(1)
    a = TARGET10.draw(4, seed=3, shift_kind="noise", strength=0.5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    b = TARGET10.draw(4, seed=3, shift_kind="noise", strength=0.5)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert torch.equal(torch.get_rng_state(), state), "the global generator must stay as it was"
    assert not torch.equal(a[0], TARGET10.draw(4, seed=4, shift_kind="noise", strength=0.5)[0])


def test_no_picture_comes_twice_within_a_draw_or_in_two_draws():
    draws = [SHAPES16.draw(20, seed=seed)[0] for seed in range(4)]
    prints = [fingerprints(x) for x in draws]
    assert all(len(seen) == 320 for seen in prints)
    assert len(set.union(*prints)) == 4 * 320


def test_a_stream_gives_new_scenes_at_every_call_and_repeats_from_its_seed():
    g = generator(5)
    (a, ya), (b, _) = SHAPES16.stream(g, 64), SHAPES16.stream(g, 64)
    again, y_again = SHAPES16.stream(generator(5), 64)
    assert torch.equal(a, again) and torch.equal(ya, y_again)
    assert not fingerprints(a) & fingerprints(b)
    assert a.shape == (64, 3, 32, 32) and 0 <= ya.min() and ya.max() < 16


def test_rendering_in_chunks_is_rendering_at_once(monkeypatch):
    many = scenes(300)
    in_chunks = render(many)
    monkeypatch.setattr(shapes, "_CHUNK", 1000)
    assert torch.allclose(in_chunks, render(many), atol=1e-6)
    monkeypatch.setattr(shapes, "_CHUNK", 7)
    assert torch.allclose(in_chunks, render(many), atol=1e-6)


def test_no_scenes_give_no_pictures():
    none = torch.zeros(0, dtype=torch.long)
    assert render(sample(none, none, generator=generator())).shape == (0, 3, 32, 32)


def test_all_factors_vary_and_stay_in_their_ranges():
    s = scenes(3000)
    assert s.texture.unique().tolist() == list(range(len(TEXTURES)))
    assert s.clutter.unique().tolist() == [0, 1, 2, 3, 4]
    assert s.size.unique().tolist() == [0, 1, 2]
    assert s.background.unique().tolist() == list(range(16))
    assert s.rotation.abs().max() <= math.pi / 4 and s.radius.min() >= 7 and s.radius.max() <= 12.5
    for centre in (s.x, s.y):  # at most a quarter of the radius is cut off
        assert (centre >= 0.74 * s.radius).all() and (32 - centre >= 0.74 * s.radius).all()


def test_the_other_factors_say_nothing_about_shape_and_colour():
    labels = torch.arange(16).repeat(200)
    s = SHAPES16.scenes(labels, generator=generator(1))
    for factor in (s.texture, s.clutter, s.size, s.colour):
        table = torch.zeros(16, int(factor.max()) + 1).index_put_(
            (labels, factor), torch.ones(len(labels)), accumulate=True
        )
        expected = table.sum(0) / 16
        chi2, freedom = ((table - expected) ** 2 / expected).sum(), 15 * (table.shape[1] - 1)
        assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


def test_a_shape_never_has_the_colour_of_its_background():
    front, back, _ = shapes._colour_table()
    s = scenes(2000)
    assert (front[s.colour] - back[s.background]).norm(dim=1).min() > 0.45


@pytest.mark.parametrize(
    "factor, other", [("colour", 3), ("texture", 1), ("background", 0), ("rotation", 0.5), ("radius", 9.0), ("x", 13.0)]
)
def test_changing_one_factor_changes_the_picture(factor, other):
    scene = clean(["triangle"], [0.0])
    before = render(scene)
    setattr(scene, factor, torch.tensor([other]).to(getattr(scene, factor)))
    assert (render(scene) - before).abs().mean() > 0.003


def test_clutter_is_drawn_behind_the_shape_stroke_by_stroke():
    pictures = [render(scenes(50, clutter=k)) for k in range(5)]
    for fewer, more in zip(pictures, pictures[1:], strict=False):
        assert ((fewer - more).abs().amax((1, 2, 3)) > 0.01).float().mean() > 0.6
    scene = clean(["square"], [0.0])
    scene.strokes = torch.tensor([[[16.0, 16.0, 9.0, 9.0, 1.6, 1.0, 0.0, 0.0]] * 4])
    bare = render(scene)
    scene.clutter = torch.tensor([4])
    struck = render(scene)
    assert torch.allclose(bare[0, :, 16, 16], struck[0, :, 16, 16]) and not torch.allclose(bare, struck)


def test_a_smooth_world_a_tiny_move_changes_the_picture_a_little():
    scene = clean(list(SHAPES), [0.0])
    before = render(scene)
    scene.x = scene.x + 0.01
    assert (render(scene) - before).abs().max() < 0.05


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: sample(torch.tensor([34]), torch.tensor([0]), generator=generator()),
            r"shape: indices must lie in 0\.\.33, got 34",
        ),
        (lambda: sample(torch.tensor([-1]), torch.tensor([0]), generator=generator()), r"shape: .*got -1"),
        (lambda: sample(torch.tensor([0]), torch.tensor([16]), generator=generator()), r"colour: .*0\.\.15, got 16"),
        (lambda: scenes(2, clutter=5), r"clutter: must be 0 to 4, got 5"),
        (lambda: TARGET10.draw(0, seed=0), r"per_class: must be at least 1, got 0"),
        (lambda: Task("t", ("disc", "blob"), 2), r"shapes: unknown \['blob'\]"),
        (lambda: Task("t", SOURCE_SHAPES, 3), r"shape_groups: 3 equal groups can't be cut from 16"),
        (lambda: Task("t", SOURCE_SHAPES, 4, 5), r"colour_groups: 5 equal groups can't be cut from 16"),
        (lambda: Task("t", SOURCE_SHAPES, 0), r"shape_groups: 0"),
        (lambda: Parity("p", SOURCE_SHAPES[:9], 3, 4), r"shape_groups: parity needs an even number of groups, got 3"),
        (lambda: Parity("p", SOURCE_SHAPES, 4, 1), r"colour_groups: parity needs an even number of groups, got 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------------------- captions
def test_captions_name_every_factor():
    s = scenes(200)
    for i, text in enumerate(shapes.caption(s)):
        words = text.split()
        assert words[:2] == ["a", shapes.SIZES[s.size[i]]] and words[2] == COLOURS[s.colour[i]]
        assert words[-4:] == ["on", "a", COLOURS[s.background[i]], "background"]
        assert words[-5] == SHAPES[s.shape[i]]
        assert ("solid" not in words) and ((TEXTURES[s.texture[i]] in words) == (s.texture[i] > 0))


def test_a_caption_word_for_word():
    scene = clean(["ring"], [0.0], radius=7.5)
    scene.colour, scene.background = torch.tensor([COLOURS.index("red")]), torch.tensor([COLOURS.index("green")])
    scene.texture = torch.tensor([TEXTURES.index("striped")])
    assert shapes.caption(scene) == ["a small red striped ring on a green background"]


def test_colour_and_background_of_the_caption_are_in_the_picture():
    scene = clean(["square"], [0.0])
    front, back, _ = shapes._colour_table()
    picture = render(scene)[0]
    assert torch.allclose(picture[:, 16, 16], front[COLOURS.index("white")], atol=1e-5)
    assert torch.allclose(picture[:, 0, 0], back[COLOURS.index("navy")], atol=1e-5)


# ---------------------------------------------------------------------------- shifts
def test_there_are_five_kinds_of_shift():
    assert len(set(SHIFTS)) == 5


@pytest.mark.parametrize("kind", SHIFTS)
def test_a_shift_starts_at_the_picture_and_moves_away_steadily(kind):
    x, _ = SHAPES16.draw(2, seed=0)
    assert torch.equal(shift(x, kind, 0.0, generator=generator()), x)
    moved = [shift(x, kind, s / 10, generator=generator(1)) for s in range(11)]
    distance = [float((m - x).square().mean().sqrt()) for m in moved]
    assert all(near < far for near, far in zip(distance, distance[1:], strict=False)), distance
    assert distance[-1] > 0.05
    for m in moved:
        assert m.shape == x.shape and m.dtype == torch.float32 and m.min() >= 0 and m.max() <= 1


@pytest.mark.parametrize("kind", SHIFTS)
def test_a_shift_leaves_its_input_alone_and_repeats_from_its_generator(kind):
    x, _ = DEV8.draw(1, seed=0)
    before = x.clone()
    a, b = (shift(x, kind, 0.7, generator=generator(3)) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(x, before)


@pytest.mark.parametrize("kind", SHIFTS)
def test_a_shifted_draw_shows_the_same_scenes(kind):
    x, y = TARGET10.draw(2, seed=5)
    moved, labels = TARGET10.draw(2, seed=5, shift_kind=kind, strength=0.6)
    assert torch.equal(y, labels) and not torch.equal(x, moved)
    assert torch.equal(TARGET10.draw(2, seed=5, shift_kind=kind, strength=0.0)[0], x)


@pytest.mark.parametrize("strength", [-0.01, 1.01, math.nan, math.inf])
def test_a_strength_outside_the_dial_is_refused(strength):
    with pytest.raises(ValueError, match=rf"strength: must lie in \[0, 1\], got {strength}"):
        shift(torch.zeros(1, 3, 32, 32), "blur", strength)


def test_an_unknown_shift_is_refused():
    with pytest.raises(ValueError, match="kind: must be one of blur, noise, underwater, sketch, night; got 'fog'"):
        shift(torch.zeros(1, 3, 32, 32), "fog", 0.5)


# ---------------------------------------------------------------------------- tasks
def test_classes_are_groups_of_factors():
    assert TARGET10.classes == TARGET_SHAPES and SHAPES16.classes == SOURCE_SHAPES and COLOUR16.classes == COLOURS
    assert len(BITS) == 5 and all(len(task.classes) == 16 for task in BITS)
    assert BITS[4].classes == SHAPES16.classes and BITS[0].classes == COLOUR16.classes
    assert BITS[2].classes[0] == "red/orange/brown/pink disc/ring/triangle/square"
    assert all(len(set(task.classes)) == len(task.classes) for task in TASKS)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_the_label_is_the_group_of_shape_and_colour(task):
    labels = torch.arange(len(task.classes)).repeat(200)
    s = task.scenes(labels, generator=generator(2))
    position = torch.tensor([task.shapes.index(SHAPES[i]) for i in s.shape.tolist()])
    group = position * task.shape_groups // len(task.shapes)
    colour_group = s.colour * task.colour_groups // len(COLOURS)
    assert torch.equal(labels, group * task.colour_groups + colour_group)
    for label in range(len(task.classes)):  # within a class every member of its groups comes up
        mine = labels == label
        assert len(position[mine].unique()) == len(task.shapes) // task.shape_groups
        assert len(s.colour[mine].unique()) == len(COLOURS) // task.colour_groups


def test_parity_is_the_sum_of_both_groups_and_neither_alone_tells_it():
    labels = torch.arange(2).repeat(4000)
    s = PARITY.scenes(labels, generator=generator(0))
    group, colour_group = s.shape // 4, s.colour // 4
    assert torch.equal(labels, (group + colour_group) % 2)
    for factor, values in ((s.shape, 16), (s.colour, 16), (group, 4), (colour_group, 4)):
        for value in range(values):
            share = labels[factor == value].float().mean()
            assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(8000 / values)  # five standard errors
    assert PARITY.classes == ("even", "odd")


# ---------------------------------------------------------------------------- similarity
def test_similarity_of_the_dial():
    assert [similarity(task, TARGET10) for task in BITS] == [0, 0.125, 0.25, 0.375, 0.5]


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_a_task_is_wholly_similar_to_itself(task):
    assert similarity(task, task) == pytest.approx(1)


def test_similarity_of_known_pairs():
    old10 = Task("old", SOURCE_SHAPES[:10], 10)
    assert similarity(SHAPES16, old10) == pytest.approx(1)  # the same factor, every shape seen
    assert similarity(SHAPES16, TARGET10) == 0.5  # the same factor, no shape seen
    assert similarity(SHAPES16, COLOUR16) == 0 == similarity(COLOUR16, TARGET10)
    assert similarity(Task("half", SOURCE_SHAPES[:8], 8), SHAPES16) == pytest.approx(0.75)
    assert similarity(COLOUR16, Task("colours of new shapes", TARGET_SHAPES, 1, 16)) == pytest.approx(1)


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


@st.composite
def tasks(draw):
    names = tuple(draw(st.lists(st.sampled_from(SHAPES), min_size=2, max_size=16, unique=True)))
    return Task("any", names, draw(st.sampled_from(divisors(len(names)))), draw(st.sampled_from(divisors(16))))


@given(tasks(), tasks())
@settings(deadline=None, max_examples=150)
def test_similarity_lies_between_zero_and_one_and_asks_for_a_shared_factor(source, target):
    value = similarity(source, target)
    assert 0 <= value <= 1 + 1e-6
    share_shape = source.shape_groups > 1 and target.shape_groups > 1
    share_colour = source.colour_groups > 1 and target.colour_groups > 1
    assert (value > 0) == (share_shape or share_colour)


@given(tasks(), tasks())
@settings(deadline=None, max_examples=50)
def test_similarity_is_symmetric_when_both_have_the_same_shapes(source, target):
    target = Task("same shapes", source.shapes, source.shape_groups, target.colour_groups)
    if 1 not in (source.shape_groups, target.shape_groups):
        assert similarity(source, target) == pytest.approx(similarity(target, source))


@given(tasks(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_any_task_draws_balanced_classes(task, seed):
    x, y = task.draw(1, seed=seed)
    assert len(x) == len(task.classes) and y.tolist() == list(range(len(task.classes)))
    assert 0 <= x.min() and x.max() <= 1


# ---------------------------------------------------------------------------- devices
def test_scenes_move_as_a_whole():
    s = scenes(3).to("meta")
    assert all(getattr(s, f.name).device.type == "meta" for f in fields(s))


@pytest.mark.gpu
def test_a_gpu_shows_the_same_pictures():
    s = scenes(600)
    assert torch.allclose(render(s), render(s.to("cuda")).cpu(), atol=1e-4)
    x, y = TARGET10.draw(5, seed=1)
    on_gpu, labels = TARGET10.draw(5, seed=1, device="cuda")
    assert (
        on_gpu.is_cuda
        and labels.is_cuda
        and torch.equal(y, labels.cpu())
        and torch.allclose(x, on_gpu.cpu(), atol=1e-4)
    )
    streamed, _ = SHAPES16.stream(generator(2), 32, device="cuda")
    assert torch.allclose(SHAPES16.stream(generator(2), 32)[0], streamed.cpu(), atol=1e-4)
    for kind in SHIFTS:
        a, b = (shift(pictures, kind, 0.6, generator=generator(1)).cpu() for pictures in (x, on_gpu))
        assert torch.allclose(a, b, atol=1e-4), kind
