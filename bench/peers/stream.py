"""Streams the files that bench/stream.sh made, decoded and brought to 64 pixels, with the loaders people use: two worker
processes, batches of 128.

    python bench/peers/stream.py webdataset|parquet|folder PATH
"""

import glob
import io
import os
import resource
import sys
import time

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info


def picture(data):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((64, 64), Image.BICUBIC))


class Folder(Dataset):
    def __init__(self, path):
        self.files = sorted(glob.glob(os.path.join(path, "**", "*.png"), recursive=True))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        with open(self.files[index], "rb") as file:
            return picture(file.read()), 0


class Parquet(IterableDataset):
    def __init__(self, path):
        self.files = sorted(glob.glob(os.path.join(path, "*.parquet")))

    def __iter__(self):
        import pyarrow.parquet as parquet

        info = get_worker_info()
        for file in self.files[info.id :: info.num_workers]:
            for part in parquet.ParquetFile(file).iter_batches(128):
                rows = part.to_pylist()
                for row in rows:
                    data = row["image"]
                    data = data["bytes"] if isinstance(data, dict) else data
                    yield picture(data), len(row["caption"])


def source(kind, path):
    if kind == "webdataset":
        import webdataset

        pipe = webdataset.WebDataset(path, shardshuffle=False, empty_check=False)
        return pipe.to_tuple("jpg;png", "txt").map_tuple(picture, len)
    return Parquet(path) if kind == "parquet" else Folder(path)


def main():
    kind, path = sys.argv[1:]
    start, count, letters = time.time(), 0, 0
    for pictures, words in DataLoader(source(kind, path), batch_size=128, num_workers=2):
        count += len(pictures)
        letters += int(words.sum())
    rate = count / (time.time() - start)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{count} pairs, {letters} letters of captions, {rate:.0f} pairs/s, largest worker {most} MiB")


if __name__ == "__main__":
    main()
