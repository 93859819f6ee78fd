"""A bot's log: our reader beside `json.loads` and a flatten that checks nothing, its memory, and the whole `trades train` command.

python benchmarks/records.py [--records 100000] [--repeat 3] [--large 0] [--train] [--sample ../shared/data/records/features_sample.jsonl]

The readers are called in turn and the fastest call of each counts, because other work on the machine only ever adds time; processor seconds
stand beside it. Marks: 5 s for 100,000 records, and 1.2 times the naive reader. `--large N` (say 1000000) also reads N records, each file
in a process of its own, and prints the memory that the reader needs beside the frame that it gives: mark 1.3 times that of the small file,
and time in proportion. `--train` runs the whole command with `--parallel` on the sample (its second run counts: the first fills numba's
caches) and on the generated records: marks 15 s, and 2 minutes and 2 GiB for judging, evidence, models, proof and reports of 100,000.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trademl.data.record_maker import make_records, write_records
from trademl.data.records import read_records

MARK_S, MARK_RATIO, MARK_MEMORY = 5.0, 1.2, 1.3
SAMPLE_S, TRAIN_S, TRAIN_MIB = 15.0, 120.0, 2048.0
SAMPLE = Path("../shared/data/records/features_sample.jsonl")
READING = ("data", "features")  # stages that are not counted as training


def naive(path: Path) -> list[dict]:
    """Every line as one flat dict: no check of any kind."""
    rows = []
    with path.open() as file:
        for line in file:
            flat = {}
            for section, value in json.loads(line).items():
                if isinstance(value, dict):
                    for key, cell in value.items():
                        flat[f"{section}_{key}"] = cell
                else:
                    flat[section] = value
            rows.append(flat)
    return rows


def seconds(call, path: Path) -> tuple[float, float]:
    """Wall and processor time of one call, its result thrown away."""
    began = time.perf_counter(), time.process_time()
    call(path)
    return time.perf_counter() - began[0], time.process_time() - began[1]


def repeated(path: Path, target: Path, times: int) -> None:
    """The records of a file `times` over, later each time and under other ids."""
    records = [json.loads(line) for line in path.open("rb")]
    span = records[-1]["timestamp"] - records[0]["timestamp"] + 60_000
    with target.open("wb") as out:
        for copy in range(times):
            for record in records:
                moved = record | {"id": f"{record['id']}{copy}", "timestamp": record["timestamp"] + copy * span}
                out.write(json.dumps(moved, separators=(",", ":")).encode() + b"\n")


def resident_mib() -> float:
    """Memory of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """The most memory that this process has had (Linux). `ru_maxrss` would count what its parent had before the program began."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def measured(path: Path) -> tuple[float, float]:
    """Processor seconds, and mebibytes at the peak beside the frame; in this process, which must be fresh."""
    read_records(path.with_name("warm.jsonl"))  # what is imported and set up once
    before, began = resident_mib(), time.process_time()
    report = read_records(path)
    took = time.process_time() - began
    return took, peak_mib() - before - report.records.memory_usage(deep=True).sum() / 2**20


def in_own_process(path: Path) -> tuple[float, float]:
    """`measured`, in a new process."""
    done = subprocess.run([sys.executable, __file__, "--measure", str(path)], capture_output=True, text=True, check=True)
    took, memory = done.stdout.split()
    return float(took), float(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--sample", type=Path, default=SAMPLE)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(*measured(options.measure))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "features_1.jsonl")
        write_records(make_records(options.records, 0.5, seed=1), path)
        side_by_side(path, options.records, options.repeat)
        if options.large:
            compare_memory(path, options.records, options.large // options.records)
        if options.train:
            whole_commands(path, options.records, options.sample.resolve())


def side_by_side(path: Path, n: int, repeat: int) -> None:
    """The first table."""
    calls = {"json.loads + flatten, no check": naive, "read_records, full report": read_records}
    took = {name: min(times) for name, times in zip(calls, zip(*[[seconds(call, path) for call in calls.values()] for _ in range(repeat)]))}
    base = took["json.loads + flatten, no check"]
    print(f"{n:,} records of {path.stat().st_size / n:,.0f} bytes")
    for name, (wall, cpu) in took.items():
        print(f"  {name:34}{wall:8.2f} s{wall / base[0]:8.2f}x{cpu:10.2f} s of processor{cpu / base[1]:8.2f}x")
    print(f"  marks: {MARK_S * n / 100_000:g} s, {MARK_RATIO}x")


def compare_memory(path: Path, n: int, times: int) -> None:
    """The second table."""
    large = path.with_name("large.jsonl")
    write_records(make_records(50, 0.5, seed=1), path.with_name("warm.jsonl"))
    repeated(path, large, times)
    small_s, small_mib = in_own_process(path)
    large_s, large_mib = in_own_process(large)
    print(f"  {'records':>12}{'CPU s':>10}{'MiB beside the frame':>24}")
    print(f"  {n:12,}{small_s:10.1f}{small_mib:24.0f}")
    print(f"  {n * times:12,}{large_s:10.1f}{large_mib:24.0f}")
    print(f"  {large_s / small_s:.1f}x the time for {times}x the records, {large_mib / small_mib:.2f}x the memory (mark {MARK_MEMORY}x)")


def train(path: Path, desk: Path, *more: str) -> dict:
    """`trademl trades train` in the folder `desk`: wall and processor seconds, its stages, the peak memory of its kernel."""
    command = [
        str(Path(sys.executable).with_name("trademl")),
        "trades",
        "train",
        "--data",
        str(path),
        "--parallel",
        "--json",
        "--quiet",
        *more,
    ]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    record = json.loads(done.stdout)
    events = [json.loads(line) for line in (desk / record["report"]).with_name("events.jsonl").open()]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "stages": record["seconds"], "mib": max(event["peak_memory_mib"] or 0 for event in events)}


def whole_commands(path: Path, n: int, sample: Path) -> None:
    """The third table."""
    desk = path.with_name("desk")
    desk.mkdir()
    runs = {f"{n:,} records": train(path, desk)}
    if sample.exists():
        train(sample, desk, "--excursion-unit", "pct", "--models-dir", "models/sample")
        runs = {"the sample, 150 records": train(sample, desk, "--excursion-unit", "pct", "--models-dir", "models/sample")} | runs
    print(f"  trades train --parallel on {os.cpu_count()} cores (marks: sample {SAMPLE_S:g} s; {TRAIN_S:g} s and {TRAIN_MIB:g} MiB)")
    print(f"  {'':26}{'command s':>12}{'processor s':>13}{'training s':>12}{'peak MiB':>10}")
    for name, run in runs.items():
        training = sum(took for stage, took in run["stages"].items() if stage not in READING)
        print(f"  {name:26}{run['wall']:12.1f}{run['cpu']:13.1f}{training:12.1f}{run['mib']:10.0f}")
        print("    " + ", ".join(f"{stage} {took:.1f}" for stage, took in run["stages"].items()))


if __name__ == "__main__":
    main()
