"""What sweeps, devices and starts cost: compilations by number of jobs, agreement over devices, time to the first
training step.

    python benchmarks/scale.py

Runs tiny networks on synthetic images (the first table) and the digits (narrower and shorter in the second, as they are
in the third), each measurement in a process of its own, in a temporary directory.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

COMPILATIONS = """
import json, sys, jax
from ispf_jax.sweep import pipeline
from tests.sweep.test_pipeline import tiny
count = []
def listen(event, *_, **__):
    if event.endswith("backend_compile_duration"):
        count.append(event)
jax.monitoring.register_event_duration_secs_listener(listen)
classes, seeds, methods, thresholds = json.loads(sys.argv[1])
c = tiny(stages="original,retrain,unlearn", forget=classes, seeds=seeds, methods=methods, compilation_cache="off")
c.parts = {f"t{i}": {"distill": {"threshold": t}} for i, t in enumerate(thresholds)}
pipeline.run(c, sys.argv[2])
print(len(count))
"""

DEVICES = """
import json, shutil, sys, jax, numpy as np
from pathlib import Path
jax.config.update("jax_num_cpu_devices", 8)
from configs import digits_ispf
from ispf_jax.sweep import pipeline
from ispf_jax.config import make_experiment
found = {}
for count in (1, 2, 8):
    c = digits_ispf.get_config()
    c.update(stages="unlearn" if found else "original,unlearn", devices=count, tensorboard=False)
    c.model.width = c.generator.width = 0.0625
    c.train.update(epochs=5, decay_epochs="4")
    c.distill.epochs = 1
    workdir = Path(sys.argv[1]) / str(count)
    if found:  # the same teacher for all
        shutil.copytree(Path(sys.argv[1]) / "1" / "original", workdir / "original")
    pipeline.run(c, str(workdir))
    worker = pipeline.Run(make_experiment(c), workdir).workers[0]
    for place in ("unlearn/dfq/gkt/3/seed0", "unlearn/dfq/ispf/3/seed0"):
        weights = np.concatenate([np.ravel(x) for x in jax.tree.leaves(worker.read(workdir / place, "last").variables)])
        row = json.loads((workdir / place / "result.json").read_text())[0]
        found[place, count] = weights
        one = found[place, 1]
        gap = float(np.linalg.norm(weights - one) / np.linalg.norm(one))
        print(json.dumps([place.split("/")[2], count, gap, row["acc_overall"], row["train_seconds"]]), flush=True)
"""


def python(code, *arguments, **environment):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.splitlines()


def compilations(directory):
    print("\njobs    compilations")
    cases = [
        ("1", "0", "ispf", [0.02]),
        ("1;2", "0", "ispf", [0.02]),
        ("each", "0,1", "ispf", [0.02]),
        ("each", "0,1", "gkt,pf,ispf", [0.02]),
        ("each", "0,1", "gkt,pf,ispf", [0.02, 0.1, 0.2]),
    ]
    for i, case in enumerate(cases):
        classes, seeds, methods, thresholds = case
        sets = 5 if classes == "each" else len(classes.split(";"))
        jobs = len(thresholds) * len(seeds.split(",")) * (1 + sets * (1 + len(methods.split(","))))
        counted = python(COMPILATIONS, json.dumps(case), directory / f"c{i}")[-1]
        print(
            f"{jobs:4}    {counted:>12}   {sets} classes, {len(seeds.split(','))} seeds, "
            f"{len(methods.split(','))} methods, {len(thresholds)} thresholds",
            flush=True,
        )


def devices(directory):
    print(
        "\nmethod    devices  distance of the student's weights to one device's after ten steps, relative  "
        "accuracy, %  training, s"
    )
    for line in python(DEVICES, directory):
        name, count, gap, accuracy, seconds = json.loads(line)
        print(f"{name:9} {count:7}  {gap:77.1e}  {accuracy:11.2f}  {seconds:11.1f}", flush=True)


def start(directory):
    """Seconds from starting the program to the first training step of the digits, without and with what an earlier
    start compiled."""
    print("\ntry   first start, s   second start, s   ratio")
    for i in range(3):
        times = []
        for again in (False, True):
            command = [
                sys.executable,
                "launch.py",
                "--config=configs/digits_ispf.py",
                f"--workdir={directory}/s{i}{again}",
                f"--config.compilation_cache={directory}/compiled{i}",
                "--config.progress_seconds=0",
            ]
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )
            next(line for line in process.stderr if "| 0/" in line)
            times.append(time.monotonic() - began)
            process.terminate()
            process.stderr.read()
            process.wait()
        print(f"{i + 1:3}   {times[0]:14.1f}   {times[1]:15.1f}   {times[1] / times[0]:5.2f}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", choices=("compilations", "devices", "start"))
    only = p.parse_args().only
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as directory:
        for part in (compilations, devices, start):
            if only in (None, part.__name__):
                part(Path(directory))


if __name__ == "__main__":
    main()
