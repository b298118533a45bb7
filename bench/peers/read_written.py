"""Reads what `clipguard export` and `clipguard embed` write with the usual Python libraries."""

import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import pandas
import pyarrow.parquet
import webdataset
from PIL import Image


def run(program, *arguments):
    done = subprocess.run([program, "--json", "-q", *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def digest(pixels):
    return hashlib.sha256(pixels).hexdigest()[:16]


def pixels(data):
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def from_webdataset(folder, shards):
    names = [str(folder / f"{number:05}.tar") for number in range(shards)]
    found = []
    for sample in webdataset.WebDataset(names, shardshuffle=False, empty_check=False):
        kind = next(k for k in ("jpg", "png", "webp", "gif", "bmp") if k in sample)
        caption = sample["txt"].decode() if "txt" in sample else None
        label = int(sample["cls"]) if "cls" in sample else None
        key = json.loads(sample["json"])["key"]
        found.append((key, digest(sample[kind]), digest(pixels(sample[kind])), caption, label))
    return found


def from_parquet(folder, shards):
    found = []
    for number in range(shards):
        table = pyarrow.parquet.read_table(folder / f"{number:05}.parquet")
        assert b"huggingface" in table.schema.metadata
        for row in table.to_pylist():
            data = row["image"]["bytes"]
            found.append((row["key"], digest(data), digest(pixels(data)), row.get("caption"), row.get("label")))
    return found


def from_png(folder):
    found = []
    for path in sorted(folder.rglob("*.png"), key=lambda path: path.name):
        text = path.with_suffix(".txt")
        found.append((digest(pixels(path.read_bytes())), text.read_text() if text.exists() else None))
    return found


def check(program, data, room):
    told = {}
    for kind in ("webdataset", "parquet", "png"):
        told[kind] = run(program, "export", data, "--format", kind, "--per-shard", 500, "--out", room / kind)
    shards = from_webdataset(room / "webdataset", told["webdataset"]["shards"])
    rows = from_parquet(room / "parquet", told["parquet"]["shards"])
    assert len(shards) == told["webdataset"]["samples"] == told["png"]["samples"]
    assert shards == rows, "webdataset and pyarrow read different samples"
    pictures = from_png(room / "png")
    # Pillow's own JPEG decoder may differ by a level; for lossless files the pixels are the same.
    captions = [caption for _, caption in pictures]
    assert captions == [caption for *_, caption, _ in shards]
    same = sum(a == b[2] for (a, _), b in zip(pictures, shards))
    print(f"{data}: {len(shards)} samples, the same in webdataset and pyarrow; "
          f"{same} of {len(pictures)} PNG have the pixels that Pillow decodes")

    out = room / "embeddings"
    told = run(program, "embed", "--images", data, "--part-size", 700, "--out", out)
    total = 0
    for number in range(told["parts"]):
        image = numpy.load(out / "img_emb" / f"img_emb_{number}.npy")
        table = pandas.read_parquet(out / "metadata" / f"metadata_{number}.parquet")
        assert image.dtype == numpy.float16 and image.shape == (len(table), told["dimensions"])
        assert numpy.abs(numpy.linalg.norm(image.astype(numpy.float32), axis=1) - 1).max() < 2e-3
        if told["texts"]:
            text = numpy.load(out / "text_emb" / f"text_emb_{number}.npy")
            assert text.shape == image.shape and table["caption"].notna().all()
        total += len(table)
    assert total == told["images"]
    print(f"{data}: {told['parts']} parts of embeddings, {total} rows, read by numpy and pandas")


def main():
    program, *sources = sys.argv[1:]
    for data in sources:
        with tempfile.TemporaryDirectory() as room:
            check(program, data, pathlib.Path(room))


main()
