"""A recipe for CIFAR-10 trained in PyTorch, for comparison with `kd-train run` of the same recipe.

    python torch_recipe.py train RECIPE_JSON THREADS SEED [DEVICE]
    python torch_recipe.py curve RECIPE_JSON THREADS FOLDER

RECIPE_JSON is what `kd-train check RECIPE --format json` prints. `train` prints one JSON line: accuracy on the test
samples after the last epoch, seconds of training, and the mean loss of each epoch. `curve` begins with the weights and
takes the batches that FOLDER holds (see `loss_curve.rs`) and prints the loss of every step.

What the recipe may ask for here: `resnet8` on the binary version of CIFAR-10, the augmentations `crop` and `flip`, the
optimizer `sgd`, the schedules `constant`, `cosine` and `one_cycle`.
"""

import json
import math
import os
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.shortcut = None
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)), inplace=True)

    def layers(self):
        """In the order of the zoo's graph: the shortcut before the second convolution."""
        shortcut = [] if self.shortcut is None else list(self.shortcut)
        return [self.conv1, self.norm1, *shortcut, self.conv2, self.norm2]


class ResNet8(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.ModuleList([Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)])
        self.logits = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        for block in self.blocks:
            x = block(x)
        return self.logits(x.mean((2, 3)))

    def in_order(self):
        """All trained parameters in the order of the zoo's graph."""
        layers = [self.stem, self.norm, *(layer for block in self.blocks for layer in block.layers()), self.logits]
        return [parameter for layer in layers for parameter in layer.parameters()]


def split(path, names):
    records = [np.fromfile(os.path.join(path, name), np.uint8).reshape(-1, 3073) for name in names]
    records = np.concatenate(records)
    images = torch.from_numpy(np.ascontiguousarray(records[:, 1:])).view(-1, 3, 32, 32)
    return images, torch.from_numpy(records[:, 0].astype(np.int64))


def read(path):
    names = sorted(name for name in os.listdir(path) if name.startswith("data_batch_") and name.endswith(".bin"))
    return split(path, names), split(path, ["test_batch.bin"])


def augmented(images, kinds, generator):
    """Each image cut and flipped by itself, as uint8."""
    n = len(images)
    for kind in kinds:
        if kind["kind"] == "crop":
            pad = kind["padding"]
            padded = F.pad(images, (pad, pad, pad, pad))
            top = torch.randint(0, 2 * pad + 1, (n,), generator=generator)
            left = torch.randint(0, 2 * pad + 1, (n,), generator=generator)
            rows = (top[:, None] + torch.arange(32))[:, None, :, None]
            columns = (left[:, None] + torch.arange(32))[:, None, None, :]
            images = padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
        elif kind["kind"] == "flip":
            flip = torch.rand(n, generator=generator) < kind.get("probability", 0.5)
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        else:
            sys.exit(f"error: augmentation `{kind['kind']}`: expected crop or flip; compare another recipe")
    return images


def factor(schedule, step, steps):
    kind = schedule["kind"]
    if schedule.get("warmup_epochs", 0.0) != 0.0:
        sys.exit("error: warmup_epochs: expected 0; compare another recipe")
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        least = schedule["least"]
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * step / steps))
    if kind == "one_cycle":
        # As torch's OneCycleLR, whose last step is the lowest.
        first, last = 1.0 / schedule["div"], 1.0 / schedule["div"] / schedule["final_div"]
        peak = schedule["rise"] * steps - 1
        if step <= peak:
            share, a, b = step / peak, first, 1.0
        else:
            share, a, b = (step - peak) / (steps - 1 - peak), 1.0, last
        return b + (a - b) * 0.5 * (1 + math.cos(math.pi * share))
    sys.exit(f"error: schedule `{kind}`: expected constant, cosine or one_cycle; compare another recipe")


def optimizer_of(train, model):
    options = train["optimizer"]
    if options["kind"] != "sgd":
        sys.exit(f"error: optimizer `{options['kind']}`: expected sgd; compare another recipe")
    return torch.optim.SGD(
        model.parameters(),
        lr=options["lr"],
        momentum=options["momentum"],
        nesterov=options["nesterov"],
        dampening=options["dampening"],
        weight_decay=options["weight_decay"],
        fused=True,
    )


def train(recipe, seed, device):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    (images, labels), (test_images, test_labels) = read(recipe["data"]["path"])
    scaled = images.to(torch.float64) / 255
    mean = scaled.mean((0, 2, 3)).to(torch.float32).view(1, 3, 1, 1)
    std = scaled.std((0, 2, 3), unbiased=False).to(torch.float32).view(1, 3, 1, 1)
    del scaled

    def fed(x):
        x = (x.to(device).to(torch.float32) / 255 - mean) / std
        return x.contiguous(memory_format=torch.channels_last)

    mean, std = mean.to(device), std.to(device)
    model = ResNet8(10).to(device, memory_format=torch.channels_last)
    settings = recipe["train"]
    optimizer = optimizer_of(settings, model)
    epochs, batch = settings["epochs"], settings["batch"]
    per_epoch = math.ceil(len(images) / batch)
    losses = []
    begin = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for i in range(per_epoch):
            places = order[i * batch : (i + 1) * batch]
            x = fed(augmented(images[places], recipe["data"]["augment"], generator))
            for group in optimizer.param_groups:
                group["lr"] = settings["optimizer"]["lr"] * factor(
                    settings["schedule"], epoch * per_epoch + i, epochs * per_epoch
                )
            optimizer.zero_grad(set_to_none=True)
            y = labels[places].to(device)
            loss = F.cross_entropy(model(x), y, label_smoothing=settings["label_smoothing"])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(places)
        losses.append(total / len(images))
        print(f"epoch {epoch + 1} of {epochs}: loss {losses[-1]:.4f}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - begin
    model.eval()
    with torch.no_grad():
        right = sum(
            (model(fed(x)).argmax(1) == y.to(device)).sum().item() for x, y in zip(test_images.split(500), test_labels.split(500))
        )
    print(json.dumps({"right": right, "n": len(test_images), "seconds": seconds, "losses": losses}), flush=True)


def curve(recipe, folder):
    """The losses of the steps that the folder's batches make, from its weights, in both memory layouts: how far torch is
    from itself where only the order of its sums differs."""
    about = json.load(open(os.path.join(folder, "about.json")))
    weights = torch.from_numpy(np.fromfile(os.path.join(folder, "weights.f32"), np.float32))
    x = torch.from_numpy(np.fromfile(os.path.join(folder, "x.f32"), np.float32)).view(-1, about["batch"], 3, 32, 32)
    y = torch.from_numpy(np.fromfile(os.path.join(folder, "labels.i64"), np.int64)).view(-1, about["batch"])
    both = [steps_of(recipe, about, weights, x, y, layout) for layout in (torch.channels_last, torch.contiguous_format)]
    print(json.dumps({"losses": both[0], "losses_other_layout": both[1]}), flush=True)


def steps_of(recipe, about, weights, x, y, layout):
    model = ResNet8(10).to(memory_format=layout)
    place = 0
    with torch.no_grad():
        for parameter in model.in_order():
            n = parameter.numel()
            parameter.copy_(weights[place : place + n].view(parameter.shape))
            place += n
    if place != len(weights):
        sys.exit(f"error: weights.f32: expected {place} floats, found {len(weights)}")
    optimizer = optimizer_of(recipe["train"], model)
    losses = []
    for step in range(len(x)):
        for group in optimizer.param_groups:
            group["lr"] = recipe["train"]["optimizer"]["lr"] * about["lr_factors"][step]
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x[step].contiguous(memory_format=layout)), y[step])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    what, recipe, threads, last = sys.argv[1:5]
    torch.set_num_threads(int(threads))
    recipe = json.load(open(recipe))["recipe"]
    if recipe["student"]["arch"] != "resnet8" or recipe["data"]["format"] != "cifar":
        sys.exit("error: expected a recipe of resnet8 on cifar; compare another recipe")
    device = sys.argv[5] if len(sys.argv) > 5 else "cpu"
    train(recipe, int(last), device) if what == "train" else curve(recipe, last)


main()
