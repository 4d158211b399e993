"""A classifier that comes as a file gives what the same one trained here gives, with images or with none."""

import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import ispf_jax
from ispf_jax.errors import RejectedError, UserError
from ispf_jax.files import read_weights, torch_zip
from ispf_jax.files.card import sha256, verify
from ispf_jax.runtime.rows import read_rows
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import results, snapshot, tiny
from tests.test_launch import ROOT, launch

OWN = {"stages": "original,unlearn,report"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that trains its original, and writes every network for other programs."""
    workdir = tmp_path_factory.mktemp("trained")
    pipeline.run(tiny(export="pt,safetensors"), str(workdir))
    return workdir


def weights(workdir, method):
    return next(
        row["weights"] for row in results(workdir) if row["method"] == method and row["selection"] != "best_test_retain"
    )


@pytest.fixture
def own_file(trained, tmp_path):
    """The original as a program with DataParallel writes it, in a checkpoint."""
    tensors = read_weights(trained / "original/seed0/weights.pt").tensors
    path = tmp_path / "own.pt"
    path.write_bytes(torch_zip.write({f"module.{name}": value for name, value in tensors.items()}, {}))
    return path


STUDENT = "unlearn/dfq/ispf/1/seed0/weights"


def test_all_networks_are_written_in_both_formats(trained):
    for place in ("original/seed0", "retrain/1/seed0", "unlearn/dfq/ispf/1/seed0"):
        pt = read_weights(trained / place / "weights.pt").tensors
        safe = safetensors.numpy.load_file(trained / place / "weights.safetensors")
        assert len(pt) == 42 and set(pt) == set(safe)
        for name, value in pt.items():
            np.testing.assert_array_equal(value, safe[name])
    with safetensors.safe_open(trained / f"{STUDENT}.safetensors", "numpy") as file:
        about = file.metadata()
    assert json.loads(about["forgotten"]) == ["class1"] and json.loads(about["class_names"])[4] == "class4"
    assert (about["model"], about["mean"], about["image_shape"]) == ("allcnn", "[0.5]", "[8, 8, 1]")


def test_the_same_student_from_the_file_with_images_and_without(trained, own_file, tmp_path):
    pipeline.run(tiny(model__checkpoint=str(own_file), **OWN), str(tmp_path / "images"))
    (given,) = (row for row in results(tmp_path / "images") if row["method"] == "original")
    assert (given["selection"], given["access"], given["train_seconds"]) == ("given", "a file", 0)
    assert given["acc_retain"] == next(row["acc_retain"] for row in results(trained) if row["method"] == "original")
    pipeline.run(
        tiny(model__checkpoint=str(own_file), data__name="none", data__max_train=0, data__max_test=0, **OWN),
        str(tmp_path / "none"),
    )
    for workdir in (tmp_path / "images", tmp_path / "none"):
        for method in ("original", "ispf"):
            assert weights(workdir, method) == weights(trained, method)
        student = read_weights(workdir / f"{STUDENT}.pt").tensors
        assert list(student) == list(read_weights(own_file).tensors)  # in the format and with the names of the file
        for name, value in read_weights(trained / f"{STUDENT}.pt").tensors.items():
            np.testing.assert_array_equal(student[f"module.{name}"], value)
        assert not (workdir / f"{STUDENT}.safetensors").exists()


def test_without_images_nothing_is_claimed(own_file, tmp_path):
    config = tiny(
        model__checkpoint=str(own_file),
        data__name="none",
        data__max_train=0,
        data__max_test=0,
        methods="gkt,ispf",
        **OWN,
    )
    table = pipeline.run(config, str(tmp_path / "run"))
    assert all(
        getattr(row, f"acc_{part}") is None
        for row in read_rows(tmp_path / "run")
        for part in ("forget", "retain", "overall")
    )
    assert "nan" not in table.lower()
    students = [row for row in read_rows(tmp_path / "run") if row.method in ("gkt", "ispf")]
    assert len(students) == 2 and all(
        0 <= row.called_forgotten <= 100 and 0 <= (row.agreement or 0) <= 100 for row in students
    )
    assert "called forgotten" in table and not list((tmp_path / "run/figures").glob("accuracy*"))
    for name in ("tables.md", "report/index.html", "results.csv"):
        assert ",nan" not in (tmp_path / "run" / name).read_text().lower()
    assert "no images: nothing was measured on any" in (tmp_path / "run/report/index.html").read_text()


def test_a_second_start_needs_the_file_no_more_and_makes_a_lost_export_again(own_file, tmp_path):
    config, workdir = tiny(model__checkpoint=str(own_file), **OWN), tmp_path / "run"
    pipeline.run(config, str(workdir))
    before = snapshot(workdir)
    card = (workdir / STUDENT).with_name("README.md")
    assert verify(card).same == ("weights.pt", "ledger.json", os.path.relpath(own_file, card.parent))
    assert "forget: class1." in card.read_text() and sha256(own_file) in card.read_text()
    assert {f"{STUDENT}.pt", "report/index.html"} <= set(verify(workdir).same)
    rows, sha256_before = results(workdir), sha256(own_file)
    own_file.unlink()
    (workdir / f"{STUDENT}.pt").unlink()
    pipeline.run(config, str(workdir))
    after, dated = snapshot(workdir), {"results.json", "SHA256SUMS"}
    kept = [name for name in before if "report" not in name and name not in dated]
    assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}
    record = json.loads((workdir / "results.json").read_text())
    assert record["rows"] == rows
    assert sha256_before in json.dumps(record)  # of the file that is gone
    assert verify(workdir)


def test_another_file_in_the_same_work_directory(own_file, tmp_path):
    pipeline.run(tiny(model__checkpoint=str(own_file), **OWN), str(tmp_path / "run"))
    for other in ("", str(tmp_path / "other.pt")):
        with pytest.raises(UserError, match=r"another configuration: model\.checkpoint"):
            pipeline.run(tiny(model__checkpoint=other, **OWN), str(tmp_path / "run"))


def photos(tmp_path, splits):
    for split in splits:
        for label in range(5):
            folder = tmp_path / split / f"kind{label}"
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = np.random.default_rng([label, i]).integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return {"data__name": "image_folder", "data__path": str(tmp_path), "data__max_train": 0, "data__max_test": 0}


def test_test_images_are_enough(own_file, tmp_path):
    keys = photos(tmp_path / "photos", ["test"])
    pipeline.run(
        tiny(model__checkpoint=str(own_file), forget="kind1", stages=OWN["stages"], **keys), str(tmp_path / "run")
    )
    assert {row["method"] for row in results(tmp_path / "run")} == {"original", "masked_head", "ispf"}
    assert all(0 <= row["acc_retain"] <= 100 for row in results(tmp_path / "run"))


@pytest.mark.parametrize(
    "stages, checkpoint, stage",
    [("original,retrain,unlearn", True, "retrain"), ("original,unlearn", False, "original")],
)
def test_what_needs_training_images_is_refused_at_once(own_file, tmp_path, stages, checkpoint, stage):
    keys = photos(tmp_path / "photos", ["test"])
    with pytest.raises(
        UserError, match=f"no training images, which the stage {stage} needs.*stages=original,unlearn,audit,report"
    ):
        pipeline.run(
            tiny(model__checkpoint=str(own_file) if checkpoint else "", stages=stages, forget="kind1", **keys),
            str(tmp_path / "run"),
        )
    assert not list((tmp_path / "run").glob("*/seed0"))


def test_the_audit_takes_it_for_trained_on_all_training_images(own_file, tmp_path):
    config = tiny(model__checkpoint=str(own_file), stages="original,retrain,unlearn,audit,report")
    config.audit.update(
        shadows=1,
        relearn_steps=2,
        relearn_batch=16,
        shots="1",
        layers=1,
        barrier_points=0,
        synthetic_images=32,
        embedding_images=0,
        metrics="accuracy,mia1,relearn,features",
        train_images=50,
    )
    pipeline.run(config, str(tmp_path / "run"))
    with np.load(tmp_path / "run/original/seed0/split.npz") as split:
        assert split["train"].all() and not split["validation"].any()
    audit = json.loads((tmp_path / "run/audit/1/seed0/audit.json").read_text())
    assert {"original", "retrain", "ispf/dfq"} <= {m["model"] for m in audit["measurements"]}


def test_a_file_that_does_not_fit_ends_with_a_sentence(own_file, tmp_path):
    done = launch(
        f"--config={ROOT}/configs/own_ispf.py",
        f"--config.model.checkpoint={own_file}",
        "--config.forget=1",
        "--config.data.classes=7",
        "--config.data.channels=1",
        f"--workdir={tmp_path / 'run'}",
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "config.data.classes=7 must be 5" in done.stderr


def test_a_wrong_key_can_be_put_right_in_the_same_work_directory(own_file, tmp_path):
    """Nothing is kept of a start whose file does not fit; a dry run says the same."""
    for dry_run in (True, False):
        with pytest.raises(UserError, match=r"config\.model\.name=.resnet18"):
            pipeline.run(
                tiny(model__checkpoint=str(own_file), model__name="resnet18", dry_run=dry_run, **OWN),
                str(tmp_path / "run"),
            )
        with pytest.raises(UserError, match=r"missing\.pt"):
            pipeline.run(
                tiny(model__checkpoint=str(tmp_path / "missing.pt"), dry_run=dry_run, **OWN), str(tmp_path / "run")
            )
    pipeline.run(tiny(model__checkpoint=str(own_file), **OWN), str(tmp_path / "run"))
    assert (tmp_path / f"run/{STUDENT}.pt").exists()


def test_a_file_that_changed_is_not_mixed_with_the_first(own_file, tmp_path):
    pipeline.run(tiny(model__checkpoint=str(own_file), **OWN), str(tmp_path / "run"))
    tensors = read_weights(own_file).tensors
    own_file.write_bytes(
        torch_zip.write(tensors | {"module.classifier.0.bias": tensors["module.classifier.0.bias"] + 1}, {})
    )
    with pytest.raises(UserError, match="has changed since the first trial"):
        pipeline.run(tiny(model__checkpoint=str(own_file), seeds="0,1", **OWN), str(tmp_path / "run"))


def test_export_of_a_finished_run(trained, tmp_path):
    """By the stage report alone, and without the checkpoints that somebody removed."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    for path in workdir.rglob("weights.*"):
        path.unlink()
    shutil.rmtree(workdir / "retrain/1/seed0/checkpoints")
    pipeline.run(tiny(export="safetensors", stages="report"), str(workdir))
    assert sorted(path.relative_to(workdir).parts[0] for path in workdir.rglob("weights.*")) == ["original", "unlearn"]


def test_work_directories_of_versions_without_the_key(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    content = json.loads((workdir / "config.json").read_text())
    for key in ("model.checkpoint", "export"):
        del content["config"][key]
    (workdir / "config.json").write_text(json.dumps(content))
    pipeline.run(tiny(), str(workdir))


def test_forgetting_again(own_file, tmp_path):
    """From the unlearned file the earlier class must be named again, and the ledger says what was forgotten when."""
    none = {"data__name": "none", "data__max_train": 0, "data__max_test": 0, **OWN}
    pipeline.run(tiny(model__checkpoint=str(own_file), **none), str(tmp_path / "first"))
    student = tmp_path / "first" / f"{STUDENT}.pt"
    with pytest.raises(UserError, match=r"config\.forget=0 must also name 1, which the weights have forgotten already"):
        pipeline.run(tiny(model__checkpoint=str(student), forget="0", **none), str(tmp_path / "second"))
    pipeline.run(tiny(model__checkpoint=str(student), forget="0,1", **none), str(tmp_path / "second"))
    ledger = json.loads((tmp_path / "second/unlearn/dfq/ispf/0-1/seed0/ledger.json").read_text())
    assert [entry["forgot"] for entry in ledger] == [[1], [0, 1]]
    assert ledger[0]["source"] == weights(tmp_path / "first", "original")
    assert ledger[0]["weights"] == ledger[1]["source"] == weights(tmp_path / "first", "ispf")
    assert ledger[1]["weights"] == weights(tmp_path / "second", "ispf")
    again = ispf_jax.load(student, image_shape=(8, 8, 1))
    with pytest.raises(ispf_jax.ArgumentError, match=r"forget=0 must also name 1"):
        ispf_jax.unlearn(again, [0])
    student.with_name("ledger.json").write_text("[{}]")
    with pytest.raises(UserError, match=r"ledger\.json is damaged"):
        ispf_jax.load(student, image_shape=(8, 8, 1))


def test_students_that_are_too_far_from_the_original_are_not_exported(own_file, tmp_path):
    """Exit code 3, everything else done; a floor that they reach, or none, and they are there."""
    none = {"data__name": "none", "data__max_train": 0, "data__max_test": 0, **OWN}
    config = tiny(model__checkpoint=str(own_file), export_floor=100.0, **none)
    for _ in range(2):  # the second start, which has nothing left to do, says it again
        with pytest.raises(RejectedError, match=r"unlearn ispf.*: its generator covers|agrees with the original on"):
            pipeline.run(config, str(tmp_path / "run"))
        assert not list((tmp_path / "run/unlearn").rglob("weights.*"))
    assert RejectedError.code == 3 and (tmp_path / "run/report/index.html").exists()
    pipeline.run(tiny(model__checkpoint=str(own_file), **none), str(tmp_path / "run"))
    assert (tmp_path / "run" / f"{STUDENT}.pt").exists()
