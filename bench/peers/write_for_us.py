"""Writes Parquet files with pyarrow and `datasets`, and reads them with `clipguard export`."""

import hashlib
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import datasets
import pyarrow
import pyarrow.parquet


def pairs(archive):
    members = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            members.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return [(key, m["jpg"], m["txt"].decode().strip()) for key, m in members.items() if "jpg" in m]


def tables(rows):
    """The habits people have, each with the captions that are expected."""
    keys, pictures, captions = (list(column) for column in zip(*rows))
    both = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    struct = pyarrow.array([{"bytes": p, "path": f"{k}.jpg"} for k, p in zip(keys, pictures)], type=both)
    lists = pyarrow.array([[c, "another"] for c in captions], type=pyarrow.list_(pyarrow.large_string()))
    labels = pyarrow.array(["ab"[i % 2] for i in range(len(rows))]).dictionary_encode()
    large = pyarrow.array(pictures, type=pyarrow.large_binary())
    yield "struct", pyarrow.table({"image": struct, "text": captions}), captions
    yield "binary", pyarrow.table({"jpg": pictures, "caption": captions, "__key__": keys}), captions
    yield "lists", pyarrow.table({"image_bytes": large, "caption": lists}), captions
    yield "labels", pyarrow.table({"image": pictures, "label": labels}), [None] * len(rows)


def read(program, path, out):
    command = [program, "-q", "export", str(path), "--format", "parquet", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.returncode, done.stderr
    rows = pyarrow.parquet.read_table(out / "00000.parquet").to_pylist()
    return 0, [(row["key"], hashlib.sha256(row["image"]["bytes"]).hexdigest(), row.get("caption"), row.get("label")) for row in rows]


def main():
    program, archive = sys.argv[1:]
    rows = pairs(archive)
    digests = [hashlib.sha256(picture).hexdigest() for _, picture, _ in rows]
    count = 0
    with tempfile.TemporaryDirectory() as room:
        room = pathlib.Path(room)
        for name, table, captions in tables(rows):
            for packing in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
                for version in ("1.0", "2.0"):
                    path = room / f"{name}-{packing}-{version}.parquet"
                    dictionary = packing != "zstd"
                    pyarrow.parquet.write_table(table, path, compression=packing, data_page_version=version,
                                                row_group_size=77, use_dictionary=dictionary)
                    code, found = read(program, path, path.with_suffix(""))
                    if packing == "brotli":
                        assert code == 3 and "brotli" in found, found
                        continue
                    assert code == 0, found
                    assert [row[1] for row in found] == digests and [row[2] for row in found] == captions, path
                    if name == "labels":
                        assert [row[3] for row in found] == [i % 2 for i in range(len(rows))]
                    count += 1
        print(f"pyarrow: {count} files of {len(rows)} rows, the same pictures and captions; brotli refused")

        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "sea horse"])})
        examples = {"image": [{"bytes": p, "path": None} for _, p, _ in rows], "label": [i % 2 for i in range(len(rows))]}
        path = room / "hf.parquet"
        datasets.Dataset.from_dict(examples, features=features).to_parquet(path)
        code, found = read(program, path, room / "hf")
        assert code == 0 and [row[1] for row in found] == digests, found
        ours = datasets.load_dataset("parquet", data_files=str(room / "hf" / "00000.parquet"), split="train", cache_dir=str(room))
        assert ours.features["label"].names == ["cat", "sea horse"]
        assert ours[1]["label"] == 1 and ours[1]["image"].size[0] > 0
        print(f"datasets: {len(rows)} rows in and out, class names and pictures the same")


main()
