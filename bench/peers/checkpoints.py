"""Exchanges checkpoints with open_clip and transformers and compares embeddings.

Usage: checkpoints.py CLIPGUARD [ARCHITECTURE...]

Random weights, so nothing is downloaded. For every architecture:
  open_clip -> here     open_clip saves a state dictionary (torch's own file); `clipguard embed` reads it
  here -> open_clip     `clipguard convert` writes a folder; open_clip loads it with its own function
  here -> transformers  the same with `--to hugging-face` and `CLIPModel.from_pretrained`
  transformers -> here  transformers saves a folder; `clipguard embed` reads it
Pictures are of the model's size, so that no resampling enters. Compared are unit embeddings; the figure is the
largest relative distance |a - b| / |b| of a row. Ends with 1 when one is above 2e-5.
"""
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import open_clip
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file

logging.getLogger().setLevel(logging.ERROR)
transformers.utils.logging.disable_progress_bar()

LIMIT = 2e-5
TEXTS = ["a photo of a cat", "two red apples to the left of a bicycle", "naïve café, 北京", "x" * 300]
# Small and large towers, both activations, a ResNet (which transformers has no class for).
DEFAULT = ["ViT-B-32", "ViT-B-32-quickgelu", "RN50-quickgelu"]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pictures(folder, side):
    """Four pictures of `side` pixels: noise in blocks, so that neighbouring patches differ."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i, block in enumerate((1, 4, 16, 32)):
        small = rng.integers(0, 256, (-(-side // block), -(-side // block), 3), dtype=np.uint8)
        large = small.repeat(block, 0).repeat(block, 1)[:side, :side]
        Image.fromarray(large).save(folder / f"{i}.png")
    return [Image.open(folder / f"{i}.png") for i in range(4)]


def here(program, model, folder, out):
    texts = out.parent / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n")
    command = [program, "embed", "--quiet", "--model", model, "--images", folder, "--texts", texts, "--out", out]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    arrays = load_file(out)
    return arrays["image"], arrays["text"]


def in_open_clip(model, preprocess, tokenizer, images):
    with torch.no_grad():
        x = model.encode_image(torch.stack([preprocess(image) for image in images]))
        y = model.encode_text(tokenizer(TEXTS))
    return unit(x.numpy()), unit(y.numpy())


def in_transformers(folder, preprocess, tokenizer, images):
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        x = model.get_image_features(pixel_values=torch.stack([preprocess(image) for image in images]))
        y = model.get_text_features(input_ids=tokenizer(TEXTS))
    # Since version 5 the features come inside an output object.
    x, y = (getattr(value, "pooler_output", value) for value in (x, y))
    return model, (unit(x.numpy()), unit(y.numpy()))


def distance(ours, theirs):
    return max(float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max()) for a, b in zip(ours, theirs))


def check(program, name, work):
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=None)
    model.eval()
    # Running statistics of random data are 0 and 1 and would hide a mistake.
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    tokenizer = open_clip.get_tokenizer(name)
    side = model.visual.image_size
    images = pictures(work / "pictures", side[0] if isinstance(side, tuple) else side)
    theirs = in_open_clip(model, preprocess, tokenizer, images)

    weights = work / "weights.pt"
    torch.save(model.state_dict(), weights)
    source = f"{name}@{weights}"
    yield "open_clip -> here", distance(here(program, source, work / "pictures", work / "a.safetensors"), theirs)

    folder = work / "open-clip"
    subprocess.run([program, "convert", "--quiet", source, "--out", folder], check=True, stdout=subprocess.DEVNULL)
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    loaded.eval()
    yield "here -> open_clip", distance(in_open_clip(loaded, preprocess, tokenizer, images), theirs)

    if name.startswith("RN"):
        return
    folder = work / "hugging-face"
    command = [program, "convert", "--quiet", source, "--to", "hugging-face", "--out", folder]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    loaded, features = in_transformers(folder, preprocess, tokenizer, images)
    yield "here -> transformers", distance(features, theirs)

    folder = work / "from-transformers"
    loaded.save_pretrained(folder)
    back = here(program, folder, work / "pictures", work / "b.safetensors")
    yield "transformers -> here", distance(back, theirs)


def main():
    program, *names = sys.argv[1:]
    program = str(Path(program).resolve())
    print(f"open_clip {open_clip.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    failed = False
    for name in names or DEFAULT:
        with tempfile.TemporaryDirectory() as work:
            for way, value in check(program, name, Path(work)):
                failed |= not value <= LIMIT
                print(f"{name:22} {way:22} {value:.1e}{'' if value <= LIMIT else '  ABOVE THE LIMIT'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
