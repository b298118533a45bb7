"""Times of clipguard beside PyTorch, ONNX Runtime (f32) and torchvision, in f32 and bf16, as one table.

    cargo build --release --workspace --bench speed
    python bench/speed.py [--only PART] [--rounds N] [--json FILE] [--peers torch,bf16,onnx]

PYTHON needs torch, torchvision, open_clip_torch, onnx, onnxruntime and pillow. The programs stay up and take turns, case by case,
so that whatever else the machine does falls on all of them; what is compared are medians. Two threads each (THREADS), one for
pictures. Memory is the peak of a fresh process during one call.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
THREADS = os.environ.get("THREADS", "2")

TOWERS = [
    f"{tower}/{work}"
    for tower in ("vit-b-32/8", "vit-b-32/32", "tiny/128", "text/32", "resnet-18/64", "rn50/8")
    for work in ("forward", "pixels", "parameters")
    if (tower, work) != ("text/32", "pixels")
]
MEMORY = ["vit-b-32/32/parameters", "tiny/128/parameters", "text/32/parameters", "resnet-18/64/parameters", "rn50/8/parameters"]
ATTACK = [f"attack/{work}/vit-b-32" for work in ("passes-1", "passes-9", "pgd-1", "pgd-9")]


class Program:
    def __init__(self, command):
        environment = dict(os.environ, RAYON_NUM_THREADS=THREADS, THREADS=THREADS, OMP_NUM_THREADS=THREADS)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, stderr=open(os.devnull, "w")
        )

    def ask(self, case, what):
        # The threads of the program before this one wait awake for a while.
        time.sleep(0.5)
        print(case, what, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit(f"{self.process.args}: ended in {case}")
        return None if answer == ["none"] else [float(value) for value in answer]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def ours():
    found = glob.glob(os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release/deps/speed-*"))
    found = [path for path in found if os.access(path, os.X_OK) and not path.endswith(".d")]
    if not found:
        raise SystemExit("build first: cargo build --release --workspace --bench speed")
    return [max(found, key=os.path.getmtime)]


def command(name):
    if name.startswith("clipguard"):
        return [*ours(), *name.split("-")[1:]]
    return [sys.executable, os.path.join(ROOT, "bench/peers/speed.py"), name]


def jpegs(folder, side):
    """Sixteen smooth pictures with some noise, quality 90, 4:2:0."""
    import numpy
    from PIL import Image

    path = os.path.join(folder, str(side))
    os.makedirs(path)
    for i in range(16):
        random = numpy.random.default_rng(i)
        small = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=numpy.uint8))
        picture = numpy.asarray(small.resize((side, side * 3 // 4), Image.BICUBIC), dtype=numpy.int16)
        picture = picture + random.integers(-6, 7, picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(numpy.uint8)).save(os.path.join(path, f"{i}.jpg"), quality=90)
    return path


def peers_here():
    """Without its instructions a processor takes minutes for what bf16 is meant to speed up."""
    with open("/proc/cpuinfo") as file:
        return "torch,bf16,onnx" if "avx512_bf16" in file.read() else "torch,onnx"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=3, help="calls a round")
    parser.add_argument("--peers", default=peers_here(), help="of torch, bf16, onnx; here: %(default)s")
    parser.add_argument("--json", help="where the durations go")
    options = parser.parse_args()
    peers = [peer for peer in options.peers.split(",") if peer]
    names = ["clipguard", *(["clipguard-bf16"] if "bf16" in peers else []), *peers]
    with tempfile.TemporaryDirectory() as room:
        folders = {side: jpegs(room, side).replace("/", "|") for side in (72, 500)}
        cases = TOWERS + [f"pictures/{work}/{folder}" for folder in folders.values() for work in ("preprocess", "simclr")]
        cases = [case for case in cases if options.only in case]
        found = {}
        programs = {name: Program(command(name)) for name in names}
        print(f"{'ms, median':<30}" + "".join(f"{name:>{width(name)}}" for name in names) + "   times as fast")
        for case in cases:
            of_pictures = case.startswith("pictures")
            if of_pictures:
                for program in programs.values():
                    program.end()
                programs = {name: Program(command(name)) for name in names if name in ("clipguard", "torch")}
            seconds = {name: [] for name in names}
            for _ in range(options.rounds):
                for name, program in programs.items():
                    seconds[name] += program.ask(case, options.times) or []
            case = case.rsplit("|", 1)
            case = case[0] if len(case) == 1 else f"{case[0].rsplit('/', 1)[0]}/{case[1]}"
            found[case] = seconds
            tell(case, seconds, names)
        for program in programs.values():
            program.end()
        attack(found, options)
        memory(found, [case for case in MEMORY if options.only in case], names)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=1)


def width(name):
    return max(12, len(name) + 2)


def tell(case, seconds, names):
    medians = {name: 1e3 * statistics.median(seconds[name]) for name in names if seconds[name]}
    cells = "".join(f"{medians[name]:>{width(name)}.1f}" if name in medians else f"{'-':>{width(name)}}" for name in names)

    def times(name):
        # bf16 beside bf16, where both have it.
        own = "clipguard-bf16" if name == "bf16" and "clipguard-bf16" in medians else "clipguard"
        return f"{name} {medians[name] / medians[own]:.2f}"

    ratios = "  ".join(times(name) for name in names[1:] if name in medians)
    print(f"{case:<30}{cells}   {ratios}", flush=True)


def attack(found, options):
    """What eight steps of PGD cost beyond one, beside what eight passes cost beyond one."""
    cases = [case for case in ATTACK if options.only in case]
    if len(cases) < len(ATTACK):
        return
    program = Program(command("clipguard"))
    for case in cases:
        found[case] = {"clipguard": []}
    for _ in range(options.rounds):
        for case in cases:
            found[case]["clipguard"] += program.ask(case, options.times)
    program.end()
    one, nine, least, most = (statistics.median(found[case]["clipguard"]) for case in ATTACK)
    step, both = (most - least) / 8, (nine - one) / 8
    print(f"a step of PGD, ViT-B-32, 8 pictures: {1e3 * step:.1f} ms; forward and backward: {1e3 * both:.1f} ms; {step / both:.3f} times")


def memory(found, cases, names):
    if not cases:
        return
    names = [name for name in names if name not in ("onnx", "clipguard-bf16")]
    print(f"\n{'MiB, peak of a call':<30}" + "".join(f"{name:>12}" for name in names))
    for case in cases:
        cells = ""
        for name in names:
            program = Program(command(name))
            # The first call: later ones find the memory of those before them.
            peak = program.ask(case, "memory")[0]
            program.end()
            found.setdefault(f"memory/{case}", {})[name] = peak
            cells += f"{peak / 2**20:>12.0f}"
        print(f"{case:<30}{cells}", flush=True)


if __name__ == "__main__":
    main()
