"""tlutils.readers: images cut and turned right, folders of images, damaged files named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlutils import datasets, readers


def picture(file: Path, colour: tuple[int, int, int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 24), colour).save(file)


def test_images_are_cut_to_a_square_around_the_centre(tmp_path):
    stripes = np.zeros((20, 60, 3), np.uint8)
    stripes[:, 20:40] = 255
    Image.fromarray(stripes).save(tmp_path / "wide.png")
    assert readers.image(tmp_path / "wide.png", 10)[:, :, 1:-1].min() == 255
    assert readers.image(tmp_path / "wide.png", 10).shape == (3, 10, 10)


def test_rotation_in_exif_is_applied(tmp_path):
    upright = Image.new("RGB", (20, 20))
    upright.paste((255, 255, 255), (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    image = readers.image(tmp_path / "turned.png", 20)
    assert image[:, :10].min() == 255 and image[:, 10:].max() == 0


def test_a_folder_of_ones_own_images(tmp_path):
    picture(tmp_path / "cats" / "2.JPG", (9, 9, 9))
    picture(tmp_path / "ants" / "1.png", (3, 2, 1))
    (tmp_path / "ants" / "notes.txt").write_text("not an image")
    x, y, classes = datasets.image_folder(tmp_path, 16)
    assert x.shape == (2, 3, 16, 16) and x.dtype == torch.uint8
    assert classes == ("ants", "cats") and y.tolist() == [0, 1]
    assert x[0, :, 0, 0].tolist() == [3, 2, 1]


def test_a_damaged_image_is_named(tmp_path):
    picture(tmp_path / "ants" / "1.png", (3, 2, 1))
    (tmp_path / "ants" / "2.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(ValueError, match=r"2\.jpg is not a readable image"):
        datasets.image_folder(tmp_path, 16)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(NotADirectoryError, match="does not exist"):
        datasets.image_folder(tmp_path / "none", 16)
    with pytest.raises(ValueError, match="no images"):
        datasets.image_folder(tmp_path, 16)


def test_resizing_keeps_the_mean_and_the_type():
    x = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    small = readers.resize(x, 16)
    assert small.dtype == torch.uint8 and small.shape == (3, 3, 16, 16)
    assert (small.float().mean((2, 3)) - x.float().mean((2, 3))).abs().max() < 2
    assert readers.resize(x, 64) is x


def test_parts_must_have_the_same_classes(tmp_path):
    picture(tmp_path / "train" / "ants" / "1.png", (1, 1, 1))
    picture(tmp_path / "test" / "bees" / "1.png", (1, 1, 1))
    with pytest.raises(ValueError, match="copy is incomplete"):
        readers.image_parts(tmp_path, 8, {"train": "train", "test": "test"})
