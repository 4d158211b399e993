"""From encoded images to arrays: sizes, channels, transparency, sixteen bits, EXIF."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ispf_jax.data import pixels as image_pixels
from ispf_jax.errors import UserError
from tests.data.makers import archive, encoded, load, make_folder, pixels


def test_channels_and_sizes(tmp_path):
    grey = make_folder(tmp_path / "grey", channels=1)
    assert load(grey).image_shape == (8, 8, 1)
    assert load(grey, channels=3).image_shape == (8, 8, 3)
    colour = make_folder(tmp_path / "colour")
    assert load(colour, channels=1).image_shape == (8, 8, 1)
    assert load(colour, image_size=8).image_shape == (8, 8, 3)
    small = load(colour, max_train=3, max_test=3)
    assert small.train.labels.tolist() == small.test.labels.tolist() == [0, 1, 2]
    large = load(colour, image_size=16, resize=True)
    want = [Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR) for image in pixels(2, 0, 8)]
    assert (large.train.images[:2] == np.stack([np.asarray(image) for image in want])).all()


def test_an_image_that_would_fill_the_memory(tmp_path):
    """A small file: its head declares 9,000 x 9,000 pixels."""
    root = make_folder(tmp_path / "pets")
    (root / "train" / "ant" / "-.pgm").write_bytes(b"P5 9000 9000 255\n")
    with pytest.raises(UserError, match=r"-.pgm has 9000x9000 pixels; at most 67,108,864"):
        load(root, image_size=8, resize=True)


@pytest.mark.parametrize(
    "name, content, options, words",
    [
        ("-.pgm", b"P5 4097 4097 255\n", {}, "4097x4097 pixels, but at most 4096 are kept; set resize"),
        ("-.pgm", b"P2 2000 2000 255\n" + b"7 " * 4_000_000, {}, "written in plain text"),
        ("-.png", b"hello", {}, "none of PNG, JPEG, BMP, WEBP, PPM"),
        ("-.jpg", "scans", {"image_size": 8, "resize": True}, "pixels in .* bytes, too many to decode"),
    ],
)
def test_images_that_would_take_too_long(tmp_path, name, content, options, words):
    """Among them one of 2,000 scans, each of which says of all pixels that nothing changes."""
    root = make_folder(tmp_path / "pets")
    if content == "scans":
        Image.new("RGB", (2100, 2100)).save(root / name, "JPEG", progressive=True)
        content = (root / name).read_bytes()
        content = content[:-2] + content[content.rindex(b"\xff\xda") : -2] * 2000 + content[-2:]
        options = {"image_size": 8, "resize": True}
    (root / "test" / "ant" / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} .*{words}"):
        load(root, **options)


def test_as_much_as_the_machine_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(image_pixels, "memory", lambda: 4 * 11 * 8 * 8 * 3)
    with pytest.raises(UserError, match=r"images up to .*train/dog/1.png take 2,304 bytes, too much for this machine"):
        load(make_folder(tmp_path / "pets"))


@pytest.mark.parametrize("grey_first", [True, False])
def test_grey_beside_colour_is_colour_in_any_order(tmp_path, grey_first):
    """Hues of one luminance would be one and the same class as grey images."""
    root = make_folder(tmp_path / "pets")
    grey = pixels(1, 5, 8, 1)[0]
    label = "ant" if grey_first else "dog"
    (root / "train" / label / "-.png").write_bytes(encoded(grey))
    for found in (load(root, cache_dir="off"), load(archive(root, tmp_path / "p.tar"), cache_dir="off")):
        assert found.image_shape == (8, 8, 3)
        wanted = [*pixels(2, 0, 8)] * 3
        wanted.insert(0 if grey_first else 4, np.repeat(grey, 3, axis=2))
        assert (found.train.images == wanted).all()
    assert load(root, channels=1).image_shape == (8, 8, 1)


def test_grey_test_images_of_a_coloured_training_set(tmp_path):
    root = make_folder(tmp_path / "pets")
    (root / "test" / "ant" / "0.png").write_bytes(encoded(pixels(1, 5, 8, 1)[0]))
    assert load(root).test.images.shape == (6, 8, 8, 3)
    grey = make_folder(tmp_path / "grey", channels=1)
    shutil.copytree(root / "train", grey / "val")  # a split that is not used has no say
    assert load(grey).image_shape == (8, 8, 1)


def one_image(root, image, name="-.png", **options):
    """The first training image of a folder to which `image` was added."""
    image.save(make_folder(root) / "train" / "ant" / name, **options)
    return load(root).train.images[0]


def test_palette_and_opaque_alpha(tmp_path):
    colours = pixels(1, 0, 8)[0]
    opaque = np.concatenate([colours, np.full((8, 8, 1), 255, np.uint8)], axis=2)
    assert (one_image(tmp_path / "a", Image.fromarray(opaque)) == colours).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert (one_image(tmp_path / "b", palette) == [10, 20, 30]).all()
    assert (one_image(tmp_path / "c", palette, transparency=0) == [10, 20, 30]).all()  # no pixel has that colour


@pytest.mark.parametrize(
    "mode, options", [("RGBA", {}), ("LA", {}), ("P", {"transparency": 0}), ("RGB", {"transparency": (0, 0, 0)})]
)
def test_transparency_is_refused(tmp_path, mode, options):
    """Black everywhere, with a shape in the transparency alone."""
    with pytest.raises(UserError, match=r"train/ant/-.png is partly transparent.*same background"):
        one_image(tmp_path / "pets", Image.new(mode, (8, 8)), **options)


def test_grey_of_sixteen_bits_is_scaled(tmp_path):
    grey = np.zeros((8, 8), np.uint16)
    grey[0] = [0, 128, 129, 200, 257, 30000, 60000, 65535]  # 257 steps of 16 bits are one of 8
    found = one_image(tmp_path / "pets", Image.fromarray(grey))
    assert found[0, :, 0].tolist() == [0, 0, 1, 1, 1, 117, 233, 255] and (found == found[:, :, :1]).all()


@pytest.mark.parametrize(
    "orientation, turns", [(1, 0), (3, 2), (6, 3), (8, 1)]
)  # EXIF 2.3, 4.6.4 A: where the first row is
@pytest.mark.parametrize("name", ["-.png", "-.webp"])
def test_photos_are_turned_upright(tmp_path, orientation, turns, name):
    stored = pixels(1, 3, 8)[0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = one_image(tmp_path / "pets", Image.fromarray(stored), name, exif=exif, lossless=True)
    assert (found == np.rot90(stored, turns)).all()
