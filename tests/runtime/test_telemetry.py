"""Console progress with an injected clock, metrics that survive stops, TensorBoard or its absence."""

import io
import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest

from ispf_jax.runtime.telemetry import MetricsLog, Progress, format_duration, open_tensorboard, read_metrics


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def run_progress(events, total, done=0, **options):
    """Replay (seconds since start, done, scalars) on a fake clock; returns the printed lines and the progress."""
    clock, stream = Clock(), io.StringIO()
    with Progress("title", total, done=done, stream=stream, clock=clock, **options) as progress:
        for seconds, steps, scalars in events:
            clock.now = 1000.0 + seconds
            progress.update(steps, **scalars)
    return stream.getvalue().splitlines(), progress


def test_a_line_says_everything():
    events = [(5.0, 40, {}), (15.0, 120, {"loss": np.float32(0.12345), "kept": 0.98, "epoch": 3})]
    lines, _ = run_progress(events, 1000)
    # 80 steps in the 10 s between the updates; 880 steps left at 8/s = 110 s
    assert (
        lines[-1] == "title | 120/1000 steps 12% | 8 steps/s | 0:15 elapsed, 1:50 left | loss 0.123 kept 0.98 epoch 3"
    )
    assert lines[0] == "title | 0/1000 steps 0%"


def test_restored_steps_do_not_count_for_the_rate():
    lines, progress = run_progress([(10.0, 920, {})], 1000, done=900)
    assert progress.rate() == pytest.approx(20 / 10)
    assert lines[0] == "title | 900/1000 steps 90% | continued"
    assert lines[1].endswith("2 steps/s | 0:10 elapsed, 0:40 left")


def test_compilation_leaves_the_rate_with_the_second_update():
    _, slow = run_progress([(60.0, 10, {})], 100)
    assert slow.rate() == pytest.approx(10 / 60)
    _, fast = run_progress([(60.0, 10, {}), (61.0, 20, {})], 100)
    assert fast.rate() == pytest.approx(10.0)


def test_the_rate_is_recent():
    events = [(t, t, {}) for t in range(1, 101)]  # one step a second, then ten
    events += [(100 + t, 100 + 10 * t, {}) for t in range(1, 61)]
    _, progress = run_progress(events, 10_000)
    assert progress.rate() == pytest.approx(10.0)


def test_updates_rarer_than_the_window_still_give_a_rate():
    _, progress = run_progress([(100.0, 1, {}), (200.0, 2, {}), (300.0, 3, {})], 10, unit="epochs")
    assert progress.rate() == pytest.approx(0.01)


def test_lines_are_spaced_but_first_and_last_always_come():
    lines, _ = run_progress([(t / 10, t, {}) for t in range(1, 256)], 255, every=10.0)
    assert [line.split(" | ")[1].split("/")[0] for line in lines] == ["0", "100", "200", "255"]


def test_the_last_line_is_not_doubled_and_comes_after_an_error_too():
    lines, _ = run_progress([(20.0, 5, {})], 5)
    assert len(lines) == 2 and "5/5 steps 100%" in lines[-1]
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Progress("t", 10, stream=stream, clock=Clock()) as progress:
        progress.update(4)
        raise RuntimeError
    assert stream.getvalue().splitlines()[-1].startswith("t | 4/10 steps 40%")


def test_disabled_prints_nothing_and_zero_steps_are_no_division():
    assert run_progress([(20.0, 5, {})], 10, enabled=False)[0] == []
    assert run_progress([], 0)[0] == ["title | 0/0 steps 100%"]


def test_a_console_that_went_away_does_not_end_the_run():
    class Gone(io.StringIO):
        def write(self, *_):
            raise BrokenPipeError

    with Progress("t", 10, stream=Gone(), clock=Clock()) as progress:
        progress.update(3)
    assert progress.done == 3


def test_live_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream, clock = Terminal(), Clock()
    with Progress("forget [3]", 100, done=50, stream=stream, clock=clock) as progress:
        clock.now += 10
        progress.update(70, loss=0.5)
    shown = stream.getvalue()
    assert "forget [3]" in shown and "\x1b[" in shown
    assert "70/100 steps  2 steps/s  0:15 left  loss 0.5" in shown
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress("t", 1, stream=stream):
        pass
    assert "\x1b[" not in stream.getvalue()


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
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write({"epoch": 1})
    assert read_metrics(tmp_path / "m.jsonl") == [{"epoch": 1}]
    log.close()


def test_zero_epochs_start_anew_and_disabled_touches_nothing(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"epoch": 1}\n')
    with MetricsLog(path, keep_epochs=0, enabled=False) as log:
        log.write({"epoch": 2})
    assert path.read_text() == '{"epoch": 1}\n'
    MetricsLog(path, keep_epochs=0).close()
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
    MetricsLog(path, keep_epochs=checkpoint).close()
    assert checkpoint > 20
    assert read_metrics(path) == [{"epoch": e, "loss": e / 7} for e in range(1, checkpoint + 1)]


def test_tensorboard_writes_scalars_and_images(tmp_path):
    pytest.importorskip("tensorboardX")
    with open_tensorboard(tmp_path / "tb", purge_step=3) as board:
        board.scalars(7, {"student/loss": np.float32(0.5), "class_counts": [1, 2], "note": "x"})
        board.images(7, "samples", np.zeros((5, 8, 8, 1), np.uint8))
    content = b"".join(f.read_bytes() for f in (tmp_path / "tb").iterdir())
    assert b"student/loss" in content and b"samples" in content and b"PNG" in content
    assert b"class_counts" not in content


def test_tensorboard_absent_or_disabled_is_silent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for board in (open_tensorboard(tmp_path / "tb"), open_tensorboard(tmp_path / "tb", enabled=False)):
        board.scalars(1, {"a": 1.0})
        board.images(1, "b", np.zeros((1, 2, 2, 3), np.uint8))
        board.close()
    assert not (tmp_path / "tb").exists()


def test_importing_telemetry_and_report_does_not_import_jax():
    code = "import sys, ispf_jax.runtime.telemetry, ispf_jax.report; sys.exit('jax' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
