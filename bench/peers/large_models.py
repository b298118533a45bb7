"""Full-size models with random weights: do they load, embed and come back bit for bit, and with how much memory.

Usage: large_models.py CLIPGUARD [ARCHITECTURE...]

For every architecture: open_clip's shapes with random f32 values are written as a folder of safetensors; then
  inspect   time of `clipguard inspect`, which reads the header alone
  load      peak memory of `clipguard inspect --deep`, which reads every number, over the size of the file
  embed     two pictures and a text, and the peak memory of that
  convert   folder -> folder, and the peak memory of that; all arrays equal to the bit
Peak memory is the kernel's (`ru_maxrss` of the child, which begins with that of its parent: so this process stays
small, and others write the weights and compare them). Ends with 1 when loading takes more than 1.3 times the file.
"""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open

LIMIT = 1.3
DEFAULT = ["ViT-L-14", "RN50x4"]


def run(*command):
    """Runs a command; seconds and peak memory in bytes."""
    begun = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))}: status {status}")
    return time.monotonic() - begun, usage.ru_maxrss * 1024


def write(name, folder):
    """A folder in open_clip's layout with random weights; nothing is initialised twice, to spare the memory."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        shapes = open_clip.CLIP(**config).state_dict()
    generator = torch.Generator().manual_seed(0)
    arrays = {}
    for key, value in shapes.items():
        if key.endswith("num_batches_tracked"):
            arrays[key] = torch.tensor(1)
        elif key == "logit_scale":
            arrays[key] = torch.tensor(4.6052)
        else:
            noise = torch.randn(value.shape, generator=generator) * 0.02
            arrays[key] = noise.abs() + 0.5 if key.endswith("running_var") else noise
    arrays = {k: v for k, v in arrays.items() if k != "attn_mask"}
    folder.mkdir()
    save_file(arrays, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


def equal(a, b):
    with safe_open(a, "np") as one, safe_open(b, "np") as other:
        keys = set(one.keys()) - {key for key in one.keys() if key.endswith("num_batches_tracked")}
        assert keys <= set(other.keys()), keys - set(other.keys())
        return all(np.array_equal(one.get_tensor(key), other.get_tensor(key)) for key in keys)


def main():
    program, *names = sys.argv[1:]
    if program == "--write":
        return write(names[0], Path(names[1]))
    if program == "--equal":
        sys.exit(not equal(*names))
    program, failed = str(Path(program).resolve()), False
    for name in names or DEFAULT:
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            subprocess.run([sys.executable, __file__, "--write", name, work / "model"], check=True)
            config = json.loads((work / "model" / "open_clip_config.json").read_text())
            side = config["model_cfg"]["vision_cfg"]["image_size"]
            file = work / "model" / "open_clip_model.safetensors"
            size = file.stat().st_size
            (work / "pictures").mkdir()
            for i in range(2):
                pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(work / "pictures" / f"{i}.png")
            (work / "texts.txt").write_text("a photo of a cat\n")
            rows = {
                "inspect": run(program, "inspect", work / "model"),
                "inspect --deep": run(program, "inspect", "--deep", work / "model"),
                "convert": run(program, "convert", "-q", work / "model", "--out", work / "copy"),
                "embed": run(program, "embed", "-q", "--model", work / "model", "--images", work / "pictures",
                             "--texts", work / "texts.txt", "--out", work / "rows.safetensors"),
            }
            print(f"{name}: {size / 1e9:.2f} GB, {side} px", flush=True)
            for what, (seconds, peak) in rows.items():
                above = what == "inspect --deep" and peak > LIMIT * size
                failed |= above
                print(f"  {what:15} {seconds:6.2f} s   peak {peak / 1e9:5.2f} GB = {peak / size:.2f} of the file"
                      f"{'  ABOVE THE LIMIT' if above else ''}")
            copy = work / "copy" / "open_clip_model.safetensors"
            same = subprocess.run([sys.executable, __file__, "--equal", file, copy]).returncode == 0
            failed |= not same
            print(f"  converted arrays {'equal to the bit' if same else 'DIFFER'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
