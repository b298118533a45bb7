"""Reads the event file of a run with TensorBoard's own reader and compares it with metrics.jsonl.

    pip install tensorboard
    clipguard train --model embedded --data scenes:256 --steps 20 --batch 16 --tensorboard --out RUN
    python bench/peers/tensorboard_read.py RUN

Every number of every line has to be a scalar of that step, to single precision, and nothing else
may be there. The reader checks the checksums of all records.
"""

import json
import math
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def numbers(line, prefix=""):
    for key, value in line.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and (prefix or key != "step"):
            yield prefix + key, struct.unpack("f", struct.pack("f", value))[0]


def main():
    run = pathlib.Path(sys.argv[1])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = {(tag, line["step"]): value for line in lines for tag, value in numbers(line)}
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    tags = sorted(reader.Tags()["scalars"])
    found = {(tag, event.step): event.value for tag in tags for event in reader.Scalars(tag)}
    for tag in tags:
        events = reader.Scalars(tag)
        print(f"{tag}: {len(events)} points, step {events[0].step} to {events[-1].step},"
              f" last {events[-1].value:.6g}")
    assert found.keys() == wanted.keys(), (found.keys() ^ wanted.keys())
    assert all(math.isclose(found[at], value, rel_tol=1e-7) for at, value in wanted.items())
    print(f"{len(found)} scalars in {len(tags)} curves equal metrics.jsonl")


if __name__ == "__main__":
    main()
