"""Image folders: directory and archives, the cache, everything that can be wrong with them."""

import io
import logging
import os
import shutil
import tarfile

import numpy as np
import pytest

from ispf_jax.data import image_folder
from ispf_jax.errors import UserError
from tests.data.makers import archive, encoded, load, make_folder, pixels, tar_of

SUFFIXES = {".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".JPG": "JPEG", ".jpeg": "JPEG"}


def same(a, b):
    return all(
        (x.images == y.images).all() and (x.labels == y.labels).all() for x, y in ((a.train, b.train), (a.test, b.test))
    )


def test_directory(tmp_path):
    found = load(make_folder(tmp_path / "pets"))
    assert (found.name, found.class_names, found.image_shape) == ("pets", ("ant", "cat", "dog"), (8, 8, 3))
    assert found.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.train.images[:2] == pixels(2, 0, 8)).all() and (found.test.images[4:] == pixels(2, 1, 8)).all()


@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz", "p.tgz", "p.tar.xz", "p.tar.bz2"])
@pytest.mark.parametrize("prefix", ["", "./", "pets/"])
def test_archives_equal_the_directory(tmp_path, name, prefix):
    root = make_folder(tmp_path / "pets")
    before = sorted(os.listdir(tmp_path))
    file = archive(root, tmp_path / name, prefix)
    assert same(load(root, cache_dir="off"), load(file, cache_dir="off"))
    assert sorted(os.listdir(tmp_path)) == sorted([*before, name])


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder(tmp_path / "pets")
    assert len(load("~/pets").train) == 6


def test_formats_and_ignored_files(tmp_path):
    root = make_folder(tmp_path / "pets", each=1)
    image = np.full((8, 8, 3), 200, np.uint8)
    for suffix, kind in SUFFIXES.items():
        (root / "train" / "ant" / f"x{suffix}").write_bytes(encoded(image, kind))
    (root / "train" / "ant" / "notes.txt").write_text("hello")
    (root / "train" / "ant" / ".hidden.png").write_text("hello")
    (root / "train" / ".git").mkdir()
    (root / "train" / "ant" / "deeper").mkdir()
    (root / "README.md").write_text("hello")
    for found in (load(root), load(archive(root, tmp_path / "p.tar"))):
        assert len(found.train) == 3 + len(SUFFIXES) and len(found.test) == 3
        assert (abs(found.train.images[1:6].astype(int) - 200) <= 3).all()


def test_ignored_files_are_told(tmp_path, caplog):
    root = make_folder(tmp_path / "pets", each=1)
    cat = root / "train" / "cat"
    for file in ("a.tif", "b.TIF", "Thumbs.db", "notes", "more/1.png", "more/deep/2.png", ".hidden", ".git/x.png"):
        (cat / file).parent.mkdir(parents=True, exist_ok=True)
        (cat / file).write_bytes(b"")
    (root / "test" / "x.png").write_bytes(b"")
    (root / "val" / "cat").mkdir(parents=True)  # not used, as there is a test split
    (root / "val" / "cat" / "c.tif").write_bytes(b"")
    (cat / "circle").symlink_to(cat)
    (cat / "nowhere").symlink_to(tmp_path / "none")
    told = (
        "ignored files: 1 .db (such as train/cat/Thumbs.db), 2 .tif (such as train/cat/a.tif), 2 in folders inside a class "
        "(such as train/cat/more/1.png), 1 in no class folder (such as test/x.png), 3 without a suffix (such as train/cat/circle)"
    )
    for path in (root, archive(root, tmp_path / "p.tar.gz")):
        for _ in range(2):  # the second time from the cache
            caplog.clear()
            found = load(path)
            assert found.note == told and len(found.train) == 3
            assert [record.getMessage() for record in caplog.records] == [f"{path}: {told}."]
    (cat / "c.tif").write_bytes(b"")
    assert "3 .tif" in load(root).note
    caplog.clear()
    assert load(make_folder(tmp_path / "clean")).note == "" and not caplog.records


def spread_links(root):
    """Four more images that are links: two hard ones and a chain of two symbolic ones, out of the class folders and back."""
    cat = root / "train" / "cat"
    os.link(cat / "0.png", cat / "hard.png")
    os.link(cat / "0.png", root / "train" / "dog" / "hard.png")
    (root / "other").mkdir()
    (root / "other" / "far").write_bytes(encoded(pixels(1, 9, 8)[0]))
    (cat / "chain.png").symlink_to("link")
    (cat / "soft.png").symlink_to("../cat/chain.png")
    (cat / "link").symlink_to("../../other/far")


@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz"])
@pytest.mark.parametrize("prefix", ["./", "pets/"])
def test_links_in_an_archive_are_followed(tmp_path, name, prefix):
    root = make_folder(tmp_path / "pets")
    spread_links(root)
    found, whole = load(archive(root, tmp_path / name, prefix)), load(root)
    assert same(found, whole) and np.bincount(found.train.labels).tolist() == [2, 5, 3]


@pytest.mark.parametrize(
    "link, target",
    [
        ("train/cat/z.png", "../../../x.png"),
        ("train/cat/z.png", "z.png"),
        ("train/cow", "cat"),
        ("train/cat/z.png", "../dog"),
    ],
)
def test_links_out_of_an_archive(tmp_path, link, target):
    """To nothing, in a circle, to a class folder, to no file."""
    root = make_folder(tmp_path / "pets")
    (root / link).symlink_to(target)
    with pytest.raises(
        UserError, match=f"{link} in the archive .*p.tar is neither a file nor a link to one.*tar --dereference"
    ):
        load(archive(root, tmp_path / "p.tar"))


def test_the_last_of_two_files_with_one_name_counts(tmp_path):
    """As unpacking has it; `tar --append` writes a newer version behind the older one."""
    root = make_folder(tmp_path / "pets")
    file = archive(root, tmp_path / "p.tar")
    newer = encoded(pixels(1, 9, 8)[0])
    (root / "train" / "cat" / "0.png").write_bytes(newer)
    with tarfile.open(file, "a") as tar:
        tar.add(root / "train" / "cat" / "0.png", arcname="./train/cat/0.png")
    assert same(load(file), load(root)) and len(load(file).train) == 6


def test_splits_in_two_places_of_an_archive(tmp_path):
    root = make_folder(tmp_path / "pets")
    file = tmp_path / "p.tar"
    for first, second in (("old", "new"), ("", "old")):
        with tarfile.open(file, "w") as tar:
            for folder, split in ((first, "train"), (first, "test"), (second, "train")):
                tar.add(root / split, arcname=os.path.join(folder, split))
        with pytest.raises(UserError, match=f"p.tar has splits in {'new and in old' if first else '. and in old'}"):
            load(file)


@pytest.mark.parametrize("name", ["val", "valid"])
def test_other_names_of_the_test_split(tmp_path, name):
    root = make_folder(tmp_path / "pets", test=name)
    assert len(load(root).test) == 6


def test_test_is_preferred_to_val(tmp_path):
    root = make_folder(tmp_path / "pets")
    shutil.copytree(root / "train", root / "val")
    found = load(archive(root, tmp_path / "p.tar"))
    assert (found.test.images[:2] == pixels(2, 1, 8)).all()


def wrong_size(root):
    (root / "train" / "dog" / "z.png").write_bytes(encoded(pixels(1, 0, 9)[0]))


def oblong(root):
    (root / "train" / "ant" / "0.png").write_bytes(encoded(pixels(1, 0, 9)[0][:5]))


def damaged(root):
    whole = (root / "test" / "cat" / "1.png").read_bytes()
    (root / "test" / "cat" / "1.png").write_bytes(whole[:80])


def not_an_image(root):
    (root / "test" / "cat" / "1.png").write_bytes(b"hello")


def empty_class(root):
    for file in (root / "test" / "cat").iterdir():
        file.unlink()


def class_missing(root):
    shutil.rmtree(root / "test" / "cat")


def split_missing(root):
    shutil.rmtree(root / "test")


@pytest.mark.parametrize("as_archive", [False, True])
@pytest.mark.parametrize(
    "spoil, words",
    [
        (wrong_size, r"train/dog/z.png is 9x9 pixels, 8x8 was expected; set data.resize=True"),
        (oblong, r"train/ant/0.png is 9x5 pixels"),
        (damaged, r"test/cat/1.png cannot be decoded"),
        (not_an_image, r"test/cat/1.png cannot be decoded"),
        (empty_class, r"test/cat holds no image"),
        (class_missing, r"class cat of .* is only in train"),
        (split_missing, r"no split test \(or val, valid\)"),
    ],
)
def test_bad_folders(tmp_path, spoil, words, as_archive):
    root = make_folder(tmp_path / "pets")
    spoil(root)
    with pytest.raises(UserError, match=words):
        load(archive(root, tmp_path / "p.tar.gz") if as_archive else root)


@pytest.mark.parametrize("as_archive", [False, True])
def test_without_training_images(tmp_path, as_archive):
    root = make_folder(tmp_path / "pets")
    whole = load(root)
    shutil.rmtree(root / "train")
    found = load(archive(root, tmp_path / "p.tar.gz") if as_archive else root)
    assert len(found.train) == 0 and found.class_names == whole.class_names
    assert found.image_shape == whole.test.images.shape[1:]
    np.testing.assert_array_equal(found.test.images, whole.test.images)
    np.testing.assert_array_equal(found.test.labels, whole.test.labels)


@pytest.mark.parametrize("as_archive", [False, True])
def test_a_class_whose_name_is_no_text(tmp_path, as_archive):
    """A name in Latin-1 is not UTF-8, and every result file is."""
    root = make_folder(tmp_path / "pets", classes=("cat", "dog"))
    for split in ("train", "test"):
        os.rename(root / split / "dog", os.fsencode(root / split) + b"/\xe9l\xe9phant")
    with pytest.raises(UserError) as caught:
        load(archive(root, tmp_path / "p.tar") if as_archive else root)
    message = str(caught.value)
    message.encode()
    assert r"'\udce9l\udce9phant'" in message and "rename it" in message


def test_an_ignored_file_whose_name_is_no_text(tmp_path):
    root = make_folder(tmp_path / "pets")
    (root / "train" / "cat" / os.fsdecode(b"\xe9.tif")).write_bytes(b"")
    assert load(root).note == r"ignored files: 1 .tif (such as train/cat/\udce9.tif)"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"image_size": 16}, "8x8 pixels, 16x16 was expected"),
        ({"resize": True}, "data.image_size is 0"),
        ({"channels": 4}, "data.channels is 4"),
    ],
)
def test_bad_options(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        load(make_folder(tmp_path / "pets"), **options)


def test_bad_paths(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"PK")
    for path, words in [
        ("", "data.path is empty"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "pets.zip", "not a directory or a tar"),
    ]:
        with pytest.raises(UserError, match=words):
            load(path)
    with pytest.raises(UserError, match="1 class"):
        load(make_folder(tmp_path / "one", classes=("cat",)))


@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz", "p.tar.xz", "p.tar.bz2"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.8])
def test_truncated_archives(tmp_path, name, keep):
    file = archive(make_folder(tmp_path / "pets", size=32), tmp_path / name)
    content = file.read_bytes().rstrip(b"\0") if name == "p.tar" else file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=f"{name} is damaged or truncated"):
        load(file)


def test_tar_cut_between_two_files(tmp_path):
    image = encoded(pixels(1, 0, 8)[0])
    file = tar_of(tmp_path / "p.tar", {f"{s}/{c}/1.png": image for s in ("train", "test") for c in "ab"}, "w")
    with tarfile.open(file) as tar:
        last = tar.getmembers()[-1]
    file.write_bytes(file.read_bytes()[: last.offset])
    with pytest.raises(UserError, match="truncated"):
        load(file)


@pytest.mark.parametrize("broken, words", [(None, "neither a file nor the end"), (bytes(512), "more behind the end")])
def test_a_broken_header_inside_an_archive(tmp_path, broken, words):
    """tarfile takes it for the end: the files behind it would be missing without a word."""
    file = archive(make_folder(tmp_path / "pets", each=9), tmp_path / "p.tar")
    with tarfile.open(file) as tar:
        member = [member for member in tar if member.name.startswith("test/") and member.isfile()][-1]
    content = bytearray(file.read_bytes())
    content[member.offset : member.offset + 512] = broken or bytes(
        b ^ 0xFF for b in content[member.offset : member.offset + 512]
    )
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"p.tar is damaged or truncated.*{words}"):
        load(file)


@pytest.mark.parametrize("name", ["p.tar.gz", "p.tar.xz", "p.tar.bz2"])
def test_no_flipped_byte_passes_for_other_images(tmp_path, name):
    """A byte that no sum covers (the time in the head of a gzip file) may change: then the images are the same."""
    file = archive(make_folder(tmp_path / "pets"), tmp_path / name)
    content, genuine, refused = file.read_bytes(), load(file), 0
    positions = range(10, len(content), 11)
    for position in positions:
        file.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            found = load(file)
        except UserError as error:
            assert f"{name} is damaged or truncated" in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(found.train.images, genuine.train.images)
            np.testing.assert_array_equal(found.test.images, genuine.test.images)
    assert refused >= len(positions) - 3


@pytest.fixture
def decodings(monkeypatch):
    """Counts how often a folder is really decoded."""
    calls, genuine = [], image_folder._decode

    def counted(*args):
        calls.append(args[1])
        return genuine(*args)

    monkeypatch.setattr(image_folder, "_decode", counted)
    return calls


def test_cache_is_used_and_notices_changes(tmp_path, decodings):
    root = make_folder(tmp_path / "pets")
    file = archive(root, tmp_path / "p.tar")
    for path in (root, file):
        decodings.clear()
        first, again = load(path), load(path)
        assert len(decodings) == 1 and same(first, again) and first.class_names == again.class_names
        assert load(path, channels=1).image_shape == (8, 8, 1) and len(decodings) == 2
        load(path, cache_dir="off")
        assert len(decodings) == 3
    assert len(list((tmp_path / "xdg" / "ispf_jax").glob("*.npz"))) == 4

    decodings.clear()
    os.rename(root / "train" / "cat" / "0.png", root / "train" / "dog" / "9.png")  # same count, sizes and times
    assert np.bincount(load(root).train.labels).tolist() == [2, 1, 3]
    (root / "train" / "cat" / "0.png").write_bytes(encoded(pixels(1, 9, 8)[0]))
    assert len(load(root).train) == 7 and len(decodings) == 2


def test_broken_or_unwritable_cache_is_no_error(tmp_path, decodings, caplog):
    root = make_folder(tmp_path / "pets")
    load(root, cache_dir=str(tmp_path / "c"))
    (stored,) = (tmp_path / "c").iterdir()
    for damage in (b"", b"hello", stored.read_bytes()[:300]):
        stored.write_bytes(damage)
        decodings.clear(), caplog.clear()
        with caplog.at_level(logging.WARNING):
            load(root, cache_dir=str(tmp_path / "c"))
        assert len(decodings) == 1 and "cannot be read" in caplog.text
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        load(root, cache_dir=str(tmp_path / "file"))
    assert "cannot be kept" in caplog.text
    assert [p.suffix for p in (tmp_path / "c").iterdir()] == [".npz"]


def test_nothing_runs_from_a_cache_file(tmp_path):
    """A cache file with pickled objects is refused, not executed."""
    root = make_folder(tmp_path / "pets")
    load(root, cache_dir=str(tmp_path / "c"))
    (stored,) = (tmp_path / "c").iterdir()
    buffer = io.BytesIO()
    np.savez(buffer, train_images=np.array([object()], dtype=object))
    stored.write_bytes(buffer.getvalue())
    assert len(load(root, cache_dir=str(tmp_path / "c")).train) == 6
