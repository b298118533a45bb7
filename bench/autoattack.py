"""AutoAttack `standard` beside the original program (PyPI: pyautoattack, by its authors), on the golden CNN and on the embedded
CLIP: time, and which pictures survive, over several seeds.

    cargo build --release --workspace --bench speed
    python bench/autoattack.py cnn|embedded [--seeds N]

PYTHON needs torch, open_clip_torch, safetensors and pyautoattack. Both programs attack the same pictures of the same network, with
the same threads, one after the other in every seed. The original draws from one stream, this program from one stream a sample, so
that single pictures at the edge may differ; by how much the original differs from itself is in the table.
"""

import argparse
import json
import os
import statistics
import tempfile
import time

import numpy
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional as F

from speed import ROOT, THREADS, Program, ours

torch.set_num_threads(int(THREADS))


class Cnn(nn.Module):
    def __init__(self, arrays):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.fc = nn.Linear(1024, 10)
        own = {name[4:]: torch.tensor(array) for name, array in arrays.items() if name.startswith("cnn.")}
        self.load_state_dict(own)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1((x - 0.5) / 0.5))))
        return self.fc(x.flatten(1))


class ZeroShot(nn.Module):
    def __init__(self, folder, head, scale):
        import open_clip

        super().__init__()
        clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self.visual, self.head, self.scale = clip.visual, torch.tensor(head), float(scale)
        normal = preprocess.transforms[-1]
        self.mean = torch.as_tensor(normal.mean).view(1, 3, 1, 1)
        self.std = torch.as_tensor(normal.std).view(1, 3, 1, 1)

    def forward(self, x):
        z = self.visual((x - self.mean) / self.std)
        return self.scale * F.normalize(z, dim=-1) @ self.head


def prepared(kind, room):
    if kind == "cnn":
        arrays = load_file(os.path.join(ROOT, "tests/golden/attacks/models.safetensors"))
        return Cnn(arrays), torch.tensor(arrays["x1"]), torch.tensor(arrays["y"]), 0.15
    arrays = load_file(os.path.join(room, "scene.safetensors"))
    model = ZeroShot(os.path.join(room, "embedded"), arrays["head"], arrays["scale"][0])
    return model, torch.tensor(arrays["pixels"]), torch.tensor(arrays["labels"]).long(), 0.5 / 255


def original(model, x, y, eps, seed):
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=eps, seed=seed, version="standard", device="cpu")
    adversary = attack.run_standard_evaluation(x, y, batch_size=len(x))
    adversary = adversary[0] if isinstance(adversary, tuple) else adversary
    with torch.no_grad():
        return (model(adversary).argmax(1) == y).numpy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=["cnn", "embedded"])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    times, left = {"clipguard": [], "original": []}, {"clipguard": [], "original": []}
    with tempfile.TemporaryDirectory() as room:
        os.environ["SPEED_ROOM"] = room
        for seed in range(options.seeds):
            program = Program(ours())
            seconds = program.ask(f"attack/autoattack-{seed}/{options.model}", "once")
            program.end()
            times["clipguard"] += seconds
            with open(os.path.join(room, "flags.json")) as file:
                left["clipguard"].append(numpy.array(json.load(file)["robust"]))
            if seed == 0:
                model, x, y, eps = prepared(options.model, room)
                model.eval().requires_grad_(False)
                with torch.no_grad():
                    print(f"right without an attack: {int((model(x).argmax(1) == y).sum())} of {len(y)}")
            begun = time.perf_counter()
            left["original"].append(original(model, x, y, eps, seed))
            times["original"].append(time.perf_counter() - begun)
            print(
                f"seed {seed}: "
                + ", ".join(f"{name} {times[name][-1]:.1f} s, {int(left[name][-1].sum())} left" for name in times),
                flush=True,
            )
    ever = {name: numpy.stack(left[name]) for name in left}
    own = max(int((a != b).sum()) for a in ever["original"] for b in ever["original"])
    across = [int((a != b).sum()) for a in ever["original"] for b in ever["clipguard"]]
    print(f"pictures that differ between two seeds of the original: at most {own}")
    print(f"pictures that differ between the programs, any two seeds: {min(across)} to {max(across)}")
    print(f"left in every seed: original {int(ever['original'].all(0).sum())}, clipguard {int(ever['clipguard'].all(0).sum())}")
    medians = {name: statistics.median(times[name]) for name in times}
    print(f"median seconds: {medians}; {medians['original'] / medians['clipguard']:.2f} times as fast")


if __name__ == "__main__":
    main()
