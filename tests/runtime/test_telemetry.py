"""Console progress with an injected clock, metrics that survive stops, TensorBoard or its absence."""

import io
import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest

from ispf_jax.runtime.telemetry import MetricsLog, format_duration, progress, read_metrics, tensorboard


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Gone(io.StringIO):
    def write(self, *_):
        raise BrokenPipeError


def shown(monkeypatch, steps=(3, 4), stream=None, **options):
    """What a progress of ten steps in all, three of them restored, leaves on the console after updates by `steps`."""
    stream = stream or io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("forget [3]", 10, done=3, **options) as bar:
        for step in steps:
            bar.set_postfix({"loss": "0.5"}, refresh=False)
            bar.update(step)
    return stream.getvalue()


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    lines = shown(monkeypatch, every=0.0).splitlines()
    assert [line.split(" | ")[1] for line in lines] == ["3/10 steps 30%", "6/10 steps 60%", "10/10 steps 100%"]
    assert all(line.startswith("forget [3] | ") for line in lines) and lines[-1].endswith(", loss=0.5")


def test_lines_are_spaced_but_first_and_last_always_come(monkeypatch):
    lines = shown(monkeypatch, steps=[1] * 7, every=1e9).splitlines()
    assert [line.split(" | ")[1].split("/")[0] for line in lines] == ["3", "10"]


def test_the_rate_does_not_count_restored_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with progress("t", 1000, done=900, every=0.0) as bar:
        now[0] = 10.0
        bar.update(20)
    assert "2.00 steps/s | 00:10 elapsed, 00:40 left" in stream.getvalue().splitlines()[-1]


def test_a_moving_bar_on_a_terminal_and_lines_where_asked_for(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert "\r" in shown(monkeypatch, stream=Terminal())
    assert "\r" not in shown(monkeypatch, stream=Terminal(), show="lines")
    monkeypatch.setenv("TERM", "dumb")
    assert "\r" not in shown(monkeypatch, stream=Terminal())


def test_nothing_where_nothing_is_wanted_and_a_console_that_went_away_does_no_harm(monkeypatch):
    assert shown(monkeypatch, show=False) == ""
    shown(monkeypatch, stream=Gone(), every=0.0)


@pytest.mark.parametrize(
    "seconds, words", [(0, "0:00"), (59.6, "1:00"), (106, "1:46"), (3599.9, "1:00:00"), (183723, "51:02:03")]
)
def test_format_duration(seconds, words):
    assert format_duration(seconds) == words


def test_metrics_values_round_trip_as_strict_json(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(
            {"epoch": np.int32(1), "loss": np.float32("nan"), "best": -math.inf, "class_counts": np.array([3, 4])}
        )
    parsed = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert parsed == {"epoch": 1, "loss": "nan", "best": "-inf", "class_counts": [3, 4]}
    (record,) = read_metrics(path)
    assert math.isnan(record["loss"]) and record["best"] == -math.inf and record["class_counts"] == [3, 4]


def test_each_line_is_on_disk_at_once(tmp_path):
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.write({"epoch": 1})
        assert read_metrics(tmp_path / "m.jsonl") == [{"epoch": 1}] == log.records


def test_zero_epochs_start_anew_and_no_path_touches_nothing(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"epoch": 1}\n')
    with MetricsLog(None) as log:
        log.write({"epoch": 2})
    assert log.records == [{"epoch": 2}] and path.read_text() == '{"epoch": 1}\n'
    with MetricsLog(path, keep_epochs=0):
        assert path.read_text() == ""


def test_half_written_line_and_later_epochs_are_dropped(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"epoch": 1, "x": 1}\n{"epoch": 2, "x": 2}\n{"epoch": 3, "x": 3}\n{"epoch": 4, "x"')
    assert [r["epoch"] for r in read_metrics(path)] == [1, 2, 3]
    with MetricsLog(path, keep_epochs=2) as log:
        log.write({"epoch": 3, "x": 30})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"epoch": 1, "x": 1},
        {"epoch": 2, "x": 2},
        {"epoch": 3, "x": 30},
    ]


def test_no_gaps_or_doubles_however_often_a_run_stops(tmp_path):
    """Runs cut off at random places, between record and checkpoint or inside a line, end with every epoch once."""
    path, rng, checkpoint = tmp_path / "m.jsonl", random.Random(0), 0
    for _ in range(40):
        with MetricsLog(path, keep_epochs=checkpoint) as log:
            for epoch in range(checkpoint + 1, checkpoint + 1 + rng.randrange(4)):
                log.write({"epoch": epoch, "loss": epoch / 7})
                if rng.random() < 0.3:
                    break
                checkpoint = epoch
        if rng.random() < 0.5:
            with open(path, "a") as file:
                file.write(json.dumps({"epoch": checkpoint + 1, "loss": 0.0})[: rng.randrange(1, 25)])
    MetricsLog(path, keep_epochs=checkpoint).__exit__()
    assert checkpoint > 20
    assert read_metrics(path) == [{"epoch": e, "loss": e / 7} for e in range(1, checkpoint + 1)]


def test_tensorboard_writes_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    with tensorboard(tmp_path / "tb", purge_step=3) as write:
        write(7, {"student/loss": np.float32(0.5), "class_counts": [1, 2], "note": "x"})
    content = b"".join(f.read_bytes() for f in (tmp_path / "tb").iterdir())
    assert b"student/loss" in content and b"class_counts" not in content


def test_tensorboard_absent_or_disabled_is_silent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for directory in (tmp_path / "tb", None):
        with tensorboard(directory, purge_step=1) as write:
            write(1, {"a": 1.0})
    assert not (tmp_path / "tb").exists()


def test_importing_telemetry_and_report_does_not_import_jax():
    code = "import sys, ispf_jax.runtime.telemetry, ispf_jax.report; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
