"""PyTorch's, ONNX Runtime's and torchvision's side of bench/speed.py: the same cases by the same names, the same protocol as
crates/clipguard/benches/speed (lines `CASE TIMES`, back come durations in seconds).

    python bench/peers/speed.py torch|bf16|onnx
"""

import io
import os
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

KIND = sys.argv[1]
THREADS = int(os.environ.get("THREADS", "2"))
torch.set_num_threads(THREADS)
torch.manual_seed(0)
MEAN, STD = torch.full((1, 3, 1, 1), 0.45), torch.full((1, 3, 1, 1), 0.27)


class Patches(nn.Module):
    """The patch embedding as a product: PyTorch's convolution is slow in its gradient to the pixels."""

    def __init__(self, conv):
        super().__init__()
        self.weight, self.patch = nn.Parameter(conv.weight.detach().flatten(1)), conv.kernel_size[0]

    def forward(self, x):
        b, c, h, w = x.shape
        p = self.patch
        x = x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)
        y = F.linear(x, self.weight)
        return y.transpose(1, 2).reshape(b, -1, h // p, w // p)


def open_clip_model(name):
    import open_clip

    if name == "tiny":
        from open_clip.model import CLIP

        vision = dict(image_size=64, layers=6, width=192, head_width=64, patch_size=8)
        texts = dict(context_length=77, vocab_size=49408, width=192, heads=3, layers=1)
        model = CLIP(embed_dim=192, vision_cfg=vision, text_cfg=texts)
    else:
        model = open_clip.create_model(name, pretrained=None, force_quick_gelu=True)
    if hasattr(model.visual, "conv1") and name != "RN50":
        model.visual.conv1 = Patches(model.visual.conv1)
    return model


class Basic(nn.Module):
    def __init__(self, inputs, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.short = None
        if inputs != out:
            self.short = nn.Sequential(nn.Conv2d(inputs, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.short is None else self.short(x)))


class ResNet18(nn.Module):
    """The plan for pictures of 32 pixels: a 3x3 stem without pooling."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        blocks, inputs = [], 64
        for stage, out in enumerate([64, 128, 256, 512]):
            for block in range(2):
                blocks.append(Basic(inputs, out, 2 if stage and not block else 1))
                inputs = out
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(512, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.fc(x.mean((2, 3)))


def tower(name, batch, work):
    if name == "resnet-18":
        model, side = ResNet18(), 32
    else:
        names = {"tiny": "tiny", "rn50": "RN50"}
        clip = open_clip_model(names.get(name, "ViT-B-32"))
        model, side = clip.visual, 64 if name == "tiny" else 224
    # Channels last is PyTorch's own advice for convolutions on processors.
    if name in ("resnet-18", "rn50"):
        model = model.to(memory_format=torch.channels_last)
    model = clip if name == "text" else model
    run = clip.encode_text if name == "text" else (lambda x: model((x - MEAN) / STD))
    # BatchNorm as on our side: statistics of the batch when parameters learn.
    model.train(work == "parameters")
    model.requires_grad_(work == "parameters")
    if name == "text":
        model.visual.requires_grad_(False)
        model.logit_scale.requires_grad_(False)
    x = torch.rand(batch, 3, side, side)
    if name == "text":
        # The longest text, so that no side can leave anything out.
        x = torch.full((batch, 77), 320)
        x[:, 0], x[:, 76] = 49406, 49407
    if name in ("resnet-18", "rn50"):
        x = x.contiguous(memory_format=torch.channels_last)
    if KIND == "onnx":
        return onnx(run, model, x, work)
    learned = [p for p in model.parameters() if p.requires_grad]

    def once():
        with torch.autocast("cpu", torch.bfloat16, enabled=KIND == "bf16"):
            if work == "forward":
                with torch.inference_mode():
                    run(x)
                return
            leaf = x.detach().requires_grad_(work == "pixels")
            z = run(leaf).sum()
        torch.autograd.grad(z, leaf if work == "pixels" else learned)

    return once


def onnx(run, model, x, work):
    import onnxruntime

    if work != "forward":
        return None
    # The fused attention of PyTorch's inference cannot be exported.
    torch.backends.mha.set_fastpath_enabled(False)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return run(x)

    file = io.BytesIO()
    torch.onnx.export(Whole().eval(), (x,), file, opset_version=17, dynamo=False, input_names=["x"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x.contiguous().numpy()})


def pictures(work, folder):
    from PIL import Image
    from torchvision import transforms as T

    torch.set_num_threads(1)
    files = [open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))]
    tensor = [T.ToTensor(), T.Normalize((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))]
    if work == "preprocess":
        steps = T.Compose([T.Resize(224, T.InterpolationMode.BICUBIC), T.CenterCrop(224), *tensor])
    else:
        jitter = T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8)
        blur = T.RandomApply([T.GaussianBlur(23)], 0.5)
        steps = T.Compose(
            [T.RandomResizedCrop(224), T.RandomHorizontalFlip(), jitter, T.RandomGrayscale(0.2), blur, *tensor]
        )

    def once():
        for data in files:
            steps(Image.open(io.BytesIO(data)).convert("RGB"))

    return once


def status(field):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


def peak(call):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    call()
    return status("VmHWM:")


def case(name):
    first, second, third = name.split("/")
    if first == "pictures":
        return pictures(second, third.replace("|", "/"))
    return tower(first, int(second), third)


def main():
    cases = {}
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        name, times = line.split()
        if name not in cases:
            cases[name] = case(name)
        call = cases[name]
        if call is None:
            print("none", file=out, flush=True)
            continue
        if times == "memory":
            print(peak(call), file=out, flush=True)
            continue
        call()
        seconds = []
        for _ in range(int(times)):
            begun = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begun)
        print(" ".join(map(str, seconds)), file=out, flush=True)


if __name__ == "__main__":
    main()
