"""Image folders: directory and archives, the cache, everything that can be wrong with them."""

import io
import os
import shutil
import tarfile

import numpy as np
import pytest

from ispf_jax import data
from ispf_jax.data import image_folder
from ispf_jax.errors import UserError
from tests.data.makers import archive, encoded, load, make_folder, pixels, tar_of


def same(a, b):
    pairs = [
        (x, y)
        for p, q in ((a.train, b.train), (a.test, b.test))
        for x, y in ((p.images, q.images), (p.labels, q.labels))
    ]
    return a.class_names == b.class_names and all(np.array_equal(x, y) for x, y in pairs)


def test_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder(tmp_path / "pets")
    found = load("~/pets")
    assert (found.name, found.class_names, found.image_shape) == ("pets", ("ant", "cat", "dog"), (8, 8, 3))
    assert found.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.train.images[:2] == pixels(2, 0, 8)).all() and (found.test.images[4:] == pixels(2, 1, 8)).all()


@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz", "p.tgz", "p.tar.xz", "p.tar.bz2"])
@pytest.mark.parametrize("prefix", ["", "./", "pets/"])
def test_archives_equal_the_directory(tmp_path, name, prefix):
    root = make_folder(tmp_path / "pets")
    before = sorted(os.listdir(tmp_path))
    assert same(load(root, cache_dir="off"), load(archive(root, tmp_path / name, prefix), cache_dir="off"))
    assert sorted(os.listdir(tmp_path)) == sorted([*before, name])


def test_formats(tmp_path):
    root = make_folder(tmp_path / "pets", each=1)
    image = np.full((8, 8, 3), 200, np.uint8)
    kinds = {".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".JPG": "JPEG", ".jpeg": "JPEG", ".ppm": "PPM"}
    for suffix, kind in kinds.items():
        (root / "train" / "ant" / f"x{suffix}").write_bytes(encoded(image, kind))
    for found in (load(root), load(archive(root, tmp_path / "p.tar"))):
        assert len(found.train) == 3 + len(kinds) and len(found.test) == 3 and found.note == ""
        assert (abs(found.train.images[1 : 1 + len(kinds)].astype(int) - 200) <= 3).all()


def test_ignored_files_are_reported(tmp_path, caplog):
    root = make_folder(tmp_path / "pets", each=1)
    cat = root / "train" / "cat"
    ignored = ("a.tif", "b.TIF", "Thumbs.db", "notes", os.fsdecode(b"\xe9.csv"), "more/1.png", "more/deep/2.png")
    for file in (*ignored, ".hidden.png", ".git/x.png", "../.git/x.png", "../../README.md", "../../val/cat/c.tif"):
        (cat / file).parent.mkdir(parents=True, exist_ok=True)
        (cat / file).write_bytes(b"")
    (root / "test" / "x.png").write_bytes(b"")
    said = (
        r"ignored files: 1 .csv (such as train/cat/\udce9.csv), 1 .db (such as train/cat/Thumbs.db), "
        "2 .tif (such as train/cat/a.tif), 2 in folders inside a class (such as train/cat/more/1.png), "
        "1 in no class folder (such as test/x.png), {} without a suffix (such as train/cat/{})"
    )
    packed = archive(root, tmp_path / "p.tar.gz")
    (cat / "circle").symlink_to(cat)  # of links, only a directory may have some
    for path, more in ((root, (2, "circle")), (packed, (1, "notes"))):
        for _ in range(2):  # the second time from the cache
            caplog.clear()
            found = load(path)
            assert found.note == said.format(*more) and len(found.train) == 3
            assert [record.getMessage() for record in caplog.records] == [f"{path}: {found.note}."]
    (cat / "c.tif").write_bytes(b"")
    assert "3 .tif" in load(root).note


def test_links_in_a_directory_are_followed(tmp_path):
    root = make_folder(tmp_path / "pets")
    whole = load(root)
    shutil.move(root / "train" / "cat", tmp_path / "cats")
    (root / "train" / "cat").symlink_to(tmp_path / "cats")
    shutil.move(tmp_path / "cats" / "0.png", tmp_path / "far")
    (tmp_path / "cats" / "0.png").symlink_to(tmp_path / "far")
    assert same(load(root), whole)


def test_the_last_of_two_files_with_one_name_counts(tmp_path):
    """As unpacking has it; `tar --append` writes a newer version behind the older one."""
    root = make_folder(tmp_path / "pets")
    file = archive(root, tmp_path / "p.tar")
    (root / "train" / "cat" / "0.png").write_bytes(encoded(pixels(1, 9, 8)[0]))
    with tarfile.open(file, "a") as tar:
        tar.add(root / "train" / "cat" / "0.png", arcname="./train/cat/0.png")
    assert same(load(file), load(root)) and len(load(file).train) == 6


@pytest.mark.parametrize("first, second", [("old", "new"), ("", "old")])
def test_splits_in_two_places_of_an_archive(tmp_path, first, second):
    root, file = make_folder(tmp_path / "pets"), tmp_path / "p.tar"
    with tarfile.open(file, "w") as tar:
        for folder, split in ((first, "train"), (first, "test"), (second, "train")):
            tar.add(root / split, arcname=os.path.join(folder, split))
    with pytest.raises(UserError, match=f"p.tar has splits in {'new/ and in old/' if first else './ and in old/'}"):
        load(file)


def test_names_of_the_test_split(tmp_path):
    root = make_folder(tmp_path / "pets", test="valid")
    assert len(load(root).test) == 6
    for name in ("val", "test"):
        shutil.copytree(root / "train", root / name)
        (root / name / "cat" / "0.png").unlink()
        assert len(load(archive(root, tmp_path / "p.tar")).test) == 5
        shutil.copy(root / "train" / "cat" / "0.png", root / name / "cat")


def test_without_training_images(tmp_path):
    root = make_folder(tmp_path / "pets")
    whole = load(root)
    shutil.rmtree(root / "train")
    for path in (root, archive(root, tmp_path / "p.tar.gz")):
        found = load(path)
        assert len(found.train) == 0 and found.class_names == whole.class_names
        assert found.image_shape == (8, 8, 3) and np.array_equal(found.test.images, whole.test.images)


@pytest.mark.parametrize("emptied", [False, True])
def test_a_class_whose_test_images_were_deleted_keeps_its_number(tmp_path, emptied):
    """Its folder may be there or not: the training images, or the names that are given, say that there is one."""
    root = make_folder(tmp_path / "pets")
    shutil.rmtree(root / "test" / "cat")
    if emptied:
        (root / "test" / "cat").mkdir()
    for path in (root, archive(root, tmp_path / "p.tar.gz")):
        found = load(path)
        assert (found.class_names, found.test.labels.tolist()) == (("ant", "cat", "dog"), [0, 0, 2, 2])
        assert found.note == "no test images of cat"
    shutil.rmtree(root / "train")
    assert load(root).class_names == (("ant", "cat", "dog") if emptied else ("ant", "dog"))
    named = load(root, class_names=("dog", "cat", "ant", "owl"))
    assert (named.test.labels.tolist(), named.note) == ([2, 2, 0, 0], "no test images of cat, owl")
    with pytest.raises(UserError, match="class_names=ant,cat lacks the folder 'dog'"):
        load(root, class_names="ant,cat")


def put(place, content):
    def change(root):
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).write_bytes(content)

    return change


def huge(kind):
    """A file whose head declares 60,000 x 60,000 pixels."""
    if kind == "PPM":
        return b"P6 60000 60000 255\n"
    content = bytearray(encoded(pixels(1, 0)[0], kind))
    content[16:24] = (60000).to_bytes(4, "big") * 2
    return bytes(content)


def rename(root, name):
    for split in ("train", "test"):
        os.rename(root / split / "dog", os.path.join(os.fsencode(root / split), name))


def empty_class(root):
    for file in (root / "train" / "cat").iterdir():
        file.rename(file.with_suffix(".txt"))


def one_class(root):
    for folder in ("train/ant", "train/dog", "test/ant", "test/dog"):
        shutil.rmtree(root / folder)


BAD = {
    "another size": (
        put("train/dog/z.png", encoded(pixels(1, 0, 9)[0])),
        "train/dog/z.png is 9x9 .*8x8 was expected; set resize",
    ),
    "oblong": (put("train/ant/-.png", encoded(pixels(1, 0, 9)[0][:5])), "train/ant/-.png is 9x5 pixels"),
    "cut image": (put("test/cat/1.png", encoded(pixels(1, 0, 8)[0])[:80]), "test/cat/1.png is damaged or cannot"),
    "no image": (put("test/cat/1.png", b"hello"), "test/cat/1.png is damaged or cannot"),
    "huge png": (put("train/ant/-.png", huge("PNG")), "(has|is) 60000x60000 pixels|is damaged or cannot"),
    "huge ppm": (put("train/ant/-.ppm", huge("PPM")), "(has|is) 60000x60000 pixels|is damaged or cannot"),
    "floats": (put("test/cat/z.ppm", b"Pf\n8 8\n-1.0\n" + bytes(256)), "test/cat/z.ppm holds floating-point numbers"),
    "class empty": (empty_class, "train/cat holds no image"),
    "class missing": (lambda root: shutil.rmtree(root / "train/cat"), "train/cat holds no image"),
    "split missing": (lambda root: shutil.rmtree(root / "test"), r"no split test \(or val, valid\)"),
    "one class": (one_class, r"no split test \(or val, valid\) with 2 or more classes"),
    "name in Latin-1": (
        lambda root: rename(root, b"\xe9l\xe9phant"),
        r"class folders of .*'\\udce9l\\udce9phant' must be text",
    ),
    "name with a line break": (lambda root: rename(root, b"a\nnt"), r"'a\\nnt'"),
}


@pytest.mark.parametrize("as_archive", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_bad_folders(tmp_path, case, as_archive):
    root = make_folder(tmp_path / "pets")
    BAD[case][0](root)
    with pytest.raises(UserError, match=BAD[case][1]) as caught:
        load(archive(root, tmp_path / "p.tar.gz") if as_archive else root)
    str(caught.value).encode()


@pytest.mark.parametrize("target", ["fifo", "/dev/zero", "sparse", "none"])
def test_files_that_are_none(tmp_path, target):
    root = make_folder(tmp_path / "pets")
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (root / "train" / "cat" / "z.png").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=r"z.png (is a pipe, socket or|has 1,099,511,627,776 bytes)|No such file"):
        load(root)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"image_size": 16}, "8x8 pixels, 16x16 was expected"),
        ({"resize": True}, "resize=True needs image_size"),
        ({"path": ""}, "path is empty"),
        ({"path": "/none/x.tar"}, "path='/none/x.tar' does not exist"),
        ({"path": __file__}, "path=.*test_image_folder.py' is not a directory or a tar archive"),
    ],
)
def test_bad_options(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        data.load("image_folder", **({"path": make_folder(tmp_path / "pets")} | options))


@pytest.mark.parametrize("broken", ["cut", "bad header", "no header"])
def test_an_archive_damaged_between_two_files(tmp_path, broken):
    """tarfile takes that for the end: the files behind it would be missing without a word."""
    image = encoded(pixels(1, 0, 8)[0])
    names = [f"{split}/{label}/{i}.png" for i in range(2) for split in ("train", "test") for label in "ab"]
    file = tar_of(tmp_path / "p.tar", dict.fromkeys(names, image), "w")
    with tarfile.open(file) as tar:
        at = tar.getmembers()[-2].offset
    content = file.read_bytes()
    head = bytes(512) if broken == "no header" else bytes(byte ^ 0xFF for byte in content[at : at + 512])
    file.write_bytes(content[:at] + (b"" if broken == "cut" else head + content[at + 512 :]))
    with pytest.raises(UserError, match=r"p.tar is damaged or cannot"):
        load(file)


@pytest.mark.parametrize("name", ["p.tar.gz", "p.tar.xz", "p.tar.bz2"])
def test_no_flipped_byte_passes_for_other_images(tmp_path, name):
    """A byte that no checksum covers (the time in the head of a gzip file) may change: then the images are the same."""
    file = archive(make_folder(tmp_path / "pets"), tmp_path / name)
    content, genuine, refused = file.read_bytes(), load(file), 0
    positions = range(10, len(content), 11)
    for position in positions:
        file.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            found = load(file)
        except UserError as error:
            assert f"{name} is damaged or cannot" in str(error)
            refused += 1
        else:
            assert same(found, genuine)
    assert refused >= len(positions) - 3
    for keep in (0.0, 0.3, 0.9):
        file.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(UserError, match=f"{name} is damaged or cannot"):
            load(file)


@pytest.fixture
def decodings(monkeypatch):
    """Counts how often a folder is really decoded."""
    calls, genuine = [], image_folder._decode
    monkeypatch.setattr(image_folder, "_decode", lambda *args: (calls.append(args[1]), genuine(*args))[1])
    return calls


def test_cache_is_used_and_notices_changes(tmp_path, decodings):
    root = make_folder(tmp_path / "pets")
    for path in (root, archive(root, tmp_path / "p.tar")):
        decodings.clear()
        first, again = load(path), load(path)
        assert len(decodings) == 1 and same(first, again)
        assert load(path, channels=1).image_shape == (8, 8, 1) and len(decodings) == 2
        load(path, cache_dir="off")
        assert len(decodings) == 3
    assert len(list((tmp_path / "xdg" / "ispf_jax").glob("*.npz"))) == 4
    os.rename(root / "train" / "cat" / "0.png", root / "train" / "dog" / "9.png")  # same count, sizes and times
    assert np.bincount(load(root).train.labels).tolist() == [2, 1, 3]
    (root / "train" / "cat" / "0.png").write_bytes(encoded(pixels(1, 9, 8)[0]))
    assert len(load(root).train) == 7


def test_broken_or_unwritable_cache_is_no_error(tmp_path, decodings, caplog):
    root, folder = make_folder(tmp_path / "pets"), tmp_path / "c"
    whole = load(root, cache_dir=folder)
    (stored,) = folder.iterdir()
    pickled = io.BytesIO()
    np.savez(pickled, train_images=np.array([object()], dtype=object))
    for damage in (b"", b"hello", stored.read_bytes()[:300], pickled.getvalue(), None):
        stored.unlink()
        os.mkfifo(stored) if damage is None else stored.write_bytes(damage)
        decodings.clear(), caplog.clear()
        assert same(load(root, cache_dir=folder), whole)
        assert len(decodings) == 1 and "cannot be read" in caplog.text
    (tmp_path / "file").write_text("in the way")
    load(root, cache_dir=tmp_path / "file")
    assert "cannot be kept" in caplog.text and [p.suffix for p in folder.iterdir()] == [".npz"]
