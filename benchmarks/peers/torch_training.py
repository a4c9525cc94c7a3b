"""Training steps in PyTorch, for comparison. Started by `training_step` as

    python torch_training.py CASE THREADS FORM

FORM is `contiguous` or `channels_last`. Prints `ready VERSION`; then for each line `N` on standard input runs N whole
steps (forward, cross-entropy, backward, fused SGD with momentum) and prints their times in ms on one line.
"""

import os
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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


def resnet(blocks):
    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    c_in = 16
    for stage, width in enumerate((16, 32, 64)):
        for block in range(blocks):
            layers.append(Block(c_in, width, 2 if stage > 0 and block == 0 else 1))
            c_in = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mlp():
    return nn.Sequential(nn.Linear(784, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, 10))


def fcn():
    layers, c_in = [], 1
    for width, kernel in ((128, 8), (256, 5), (128, 3)):
        layers += [nn.Conv1d(c_in, width, kernel, padding="same", bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        c_in = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(128, 2))


CASES = {
    "mlp": (mlp, (784,), 128, 10),
    "resnet8": (lambda: resnet(1), (3, 32, 32), 64, 10),
    "resnet20": (lambda: resnet(3), (3, 32, 32), 128, 10),
    "fcn": (fcn, (1, 140), 64, 2),
}


def main():
    name, threads, form = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    build, shape, batch, classes = CASES[name]
    torch.manual_seed(1)
    torch.set_num_threads(threads)
    model, x, y = build(), torch.randn(batch, *shape), torch.randint(classes, (batch,))
    if form == "channels_last" and len(shape) == 3:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    for _ in range(3):
        step()
    print("ready", torch.__version__, flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            times.append((time.perf_counter() - start) * 1e3)
        print(" ".join(f"{t:.4f}" for t in times), flush=True)


main()
