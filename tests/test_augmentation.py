"""tlutils.augmentation: the promised form, repeatable, and each change within its limits."""

import math

import pytest
import torch

from tlutils import augmentation, shapes
from tlutils.augmentation import affine, colour, compose


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pictures():
    return shapes.SHAPES16.draw(4, seed=0)[0]


BOTH = compose(affine(flip=True), colour())


@pytest.mark.parametrize("augment", [affine(), affine(flip=True), colour(), colour(strength=1.0), BOTH, compose()])
def test_form_and_range_are_kept_and_the_input_is_left_alone(augment, pictures):
    before = pictures.clone()
    out = augment(pictures, generator())
    assert out.shape == pictures.shape and out.dtype == torch.float32
    assert out.isfinite().all() and out.min() >= -1e-6 and out.max() <= 1 + 1e-6
    assert torch.equal(pictures, before)


@pytest.mark.parametrize("augment", [affine(), colour(), BOTH])
def test_only_the_generator_decides(augment, pictures):
    torch.manual_seed(0)
    a = augment(pictures, generator(1))
    state = torch.get_rng_state()
    b = augment(pictures, generator(1))
    assert torch.equal(a, b) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(a, augment(pictures, generator(2)))
    g = generator(1)
    assert torch.equal(a, augment(pictures, g)) and not torch.equal(a, augment(pictures, g))


@pytest.mark.parametrize("augment", [affine(rotate=0, scale=0, translate=0), colour(strength=0), compose()])
def test_no_strength_changes_nothing(augment, pictures):
    assert torch.allclose(augment(pictures, generator()), pictures, atol=1e-5)


@pytest.mark.parametrize("augment", [affine(), colour()])
def test_every_picture_gets_a_change_of_its_own(augment):
    same = shapes.SHAPES16.draw(1, seed=1)[0][:1].repeat(32, 1, 1, 1)
    assert len({image.numpy().tobytes() for image in augment(same, generator())}) == 32


def test_a_mirror_alone_is_the_mirror_image_of_about_half():
    x = shapes.SHAPES16.draw(8, seed=1)[0]
    out = affine(rotate=0, scale=0, translate=0, flip=True)(x, generator())
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(out, x, strict=True)]
    turned = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(out, x, strict=True)]
    assert all(k != t for k, t in zip(kept, turned, strict=True))
    assert 0.3 < sum(turned) / len(x) < 0.7


def blob_centre(images):
    """Centre of mass (N, 2) of single-blob pictures, in pixels from the middle."""
    mass = images.mean(1)
    axis = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    total = mass.sum((1, 2))
    return torch.stack([(mass * axis).sum((1, 2)) / total, (mass * axis[:, None]).sum((1, 2)) / total], 1)


def blob(n, x=0.0, y=0.0, sigma=2.0):
    axis = torch.arange(64.0) - 31.5
    image = torch.exp(-((axis - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * sigma**2))
    return image.expand(n, 3, 64, 64).contiguous()


def test_a_shift_stays_within_its_share_of_the_side():
    moved = blob_centre(affine(rotate=0, scale=0, translate=0.1)(blob(400), generator()))
    assert moved.abs().max() <= 6.4 + 0.05 and moved.abs().max() > 5.5
    assert moved.mean(0).abs().max() < 0.8  # either way alike


def test_a_rotation_stays_within_its_angle_and_keeps_the_distance():
    centre = blob_centre(affine(rotate=30, scale=0, translate=0)(blob(400, x=15.0), generator()))
    angle = torch.atan2(centre[:, 1], centre[:, 0]) * 180 / math.pi
    assert angle.abs().max() <= 30.5 and angle.max() > 25 and angle.min() < -25
    assert (centre.norm(dim=1) - 15).abs().max() < 0.2


def test_a_scaling_stays_within_its_range():
    centre = blob_centre(affine(rotate=0, scale=0.25, translate=0)(blob(400, x=12.0), generator()))
    zoom = centre[:, 0] / 12
    assert 0.74 <= zoom.min() < 0.8 and 1.2 < zoom.max() <= 1.26 and centre[:, 1].abs().max() < 0.1


def test_colour_changes_brightness_and_contrast_within_their_limits():
    g = torch.rand(200, 3, 8, 8, generator=generator(5)) * 0.2 + 0.4
    out = colour(strength=0.2)(g, generator())
    gain = out.mean((2, 3)) / g.mean((2, 3))
    contrast = out.std((2, 3)) / g.std((2, 3))
    for ratio in (gain, contrast):
        assert 0.799 <= ratio.min() < 0.83 and 1.17 < ratio.max() <= 1.201
    assert (contrast.amax(1) - contrast.amin(1)).max() < 1e-3  # one contrast for a picture,
    assert (gain.amax(1) - gain.amin(1)).max() > 0.1  # a gain for each of its channels


def test_steps_are_taken_in_order():
    def add(images, _):
        return images + 1

    def double(images, _):
        return images * 2

    assert torch.equal(compose(add, double)(torch.zeros(1), generator()), torch.tensor([2.0]))
    assert torch.equal(compose(double, add)(torch.zeros(1), generator()), torch.tensor([1.0]))


@pytest.mark.gpu
def test_a_gpu_draws_the_same_augmentation(pictures):
    for augment in (affine(flip=True), augmentation.colour()):
        assert torch.allclose(augment(pictures, generator(1)), augment(pictures.cuda(), generator(1)).cpu(), atol=1e-4)
