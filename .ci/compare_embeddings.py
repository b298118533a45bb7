"""Says whether the rows of some embedding files, put together, are those of the first, bit for bit.

Usage: compare_embeddings.py WHOLE PART...
"""
import json
import struct
import sys


def read(path):
    """Rows of `image` by position, and rows of `text` by the key of their picture."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        body = file.read()
    facts = json.loads(header["__metadata__"]["clipguard"])

    def rows(name):
        if name not in header:
            return []
        (start, end), (count, width) = header[name]["data_offsets"], header[name]["shape"]
        assert end - start == 4 * count * width, path
        return [body[start + 4 * width * i : start + 4 * width * (i + 1)] for i in range(count)]

    return dict(zip(facts["positions"], rows("image"))), dict(zip(facts["text_keys"], rows("text")))


whole = read(sys.argv[1])
for name, want, *parts in zip(("pictures", "texts"), whole, *map(read, sys.argv[2:])):
    together = {}
    for part in parts:
        assert not together.keys() & part.keys(), f"{name}: a row is in two parts"
        together.update(part)
    assert together.keys() == want.keys(), f"{name}: {len(together)} rows against {len(want)}"
    other = [key for key in want if want[key] != together[key]]
    assert not other, f"{name}: {len(other)} of {len(want)} rows differ, the first at {other[0]}"
    print(f"  {name}: {len(want)} rows, equal to the bit")
