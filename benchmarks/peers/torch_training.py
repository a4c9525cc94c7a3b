"""Training steps in PyTorch, for comparison. Started by `training_step` as

    python torch_training.py CASE THREADS DEVICE PRECISION

Prints `failed FORM REASON` for each form whose first step fails, then `ready VERSION FORM…`: the forms are `contiguous` and,
for images, `channels_last`, eager, with fused optimizers; on a GPU also `compiled`, by torch.compile. Then for each line
`FORM N` on standard input runs N whole steps and prints their times in ms on one line; of a GPU, which works on while the
host goes on, their mean alone. Data and network lie on the device. PRECISION is that of products on a GPU: f32, in full, or
tf32.
"""

import sys
import time

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
        y += x if self.shortcut is None else self.shortcut(x)
        return F.relu(y, inplace=True)


def norm_relu(c_in, c_out, kernel, **options):
    conv = nn.Conv2d(c_in, c_out, kernel, bias=False, **options)
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]


def separable(c_in, c_out, stride):
    depthwise = norm_relu(c_in, c_in, 3, stride=stride, padding=1, groups=c_in)
    return depthwise + norm_relu(c_in, c_out, 1)


def head(channels, classes):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def resnet(blocks, stem=16, widths=(16, 32, 64), classes=10):
    layers, c_in = norm_relu(3, stem, 3, padding=1), stem
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(Block(c_in, width, 2 if stage > 0 and block == 0 else 1))
            c_in = width
    return nn.Sequential(*layers, *head(c_in, classes))


def resnet_x4(blocks):
    return resnet(blocks, 32, (64, 128, 256), 100)


class Bottleneck(nn.Module):
    def __init__(self, c_in, c_out, stride, expansion):
        super().__init__()
        inner = c_in * expansion
        depthwise = norm_relu(inner, inner, 3, stride=stride, padding=1, groups=inner)
        end = [nn.Conv2d(inner, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]
        self.layers = nn.Sequential(*norm_relu(c_in, inner, 1), *depthwise, *end)
        self.adds = stride == 1 and c_in == c_out

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


def mobilenet_v2():
    layers, c_in = norm_relu(3, 16, 3, stride=2, padding=1), 16
    groups = [(8, 1, 1), (12, 2, 1), (16, 3, 2), (32, 4, 2), (48, 3, 1), (80, 3, 2), (160, 1, 1)]
    for group, (width, blocks, stride) in enumerate(groups):
        for block in range(blocks):
            layers.append(Bottleneck(c_in, width, stride if block == 0 else 1, 6 if group > 0 else 1))
            c_in = width
    return nn.Sequential(*layers, *norm_relu(c_in, 1280, 1), *head(1280, 100))


def ds_cnn():
    # Output 25 x 5, as with "same" pads; the head of MLPerf Tiny leaves out the last row.
    layers = norm_relu(1, 64, (10, 4), stride=2, padding=(5, 1))
    for _ in range(4):
        layers += separable(64, 64, 1)
    return nn.Sequential(*layers, nn.AvgPool2d((24, 5)), nn.Flatten(), nn.Linear(64, 12))


def mobilenet_v1():
    layers, c_in = norm_relu(3, 8, 3, stride=2, padding=1), 8
    for width, stride in [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)] + 5 * [(128, 1)] + [(256, 2), (256, 1)]:
        layers += separable(c_in, width, stride)
        c_in = width
    return nn.Sequential(*layers, *head(256, 2))


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
    "ds_cnn": (ds_cnn, (1, 49, 10), 64, 12),
    "mobilenet_v1": (mobilenet_v1, (3, 96, 96), 32, 2),
    "fcn": (fcn, (1, 140), 64, 2),
    "adamw": (mlp, (784,), 128, 10),
    "kd_live": (lambda: resnet(1), (3, 32, 32), 64, 10),
    "kd_cached": (lambda: resnet(1), (3, 32, 32), 64, 10),
    "resnet8x4": (lambda: resnet_x4(1), (3, 32, 32), 64, 100),
    "mobilenet_v2": (mobilenet_v2, (3, 32, 32), 64, 100),
    "kd32x4_live": (lambda: resnet_x4(1), (3, 32, 32), 64, 100),
    "kd32x4_cached": (lambda: resnet_x4(1), (3, 32, 32), 64, 100),
}
# Who teaches where the teacher is not cached.
TEACHERS = {"kd_live": lambda: resnet(9), "kd32x4_live": lambda: resnet_x4(5)}
CACHED_SAMPLES = 50_000


def stepper(name, form, device):
    """A function that does one step of a case in a form."""
    build, shape, batch, classes = CASES[name]
    torch.manual_seed(1)
    last = form == "channels_last" or (form == "compiled" and len(shape) == 3)
    lay = lambda value: value.to(device, memory_format=torch.channels_last) if last else value.to(device)
    model, x, y = lay(build()), lay(torch.randn(batch, *shape)), torch.randint(classes, (batch,)).to(device)
    if name == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        F.cross_entropy(model(x), y).backward()
        return optimizer.step
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    teach = None
    if name in TEACHERS:
        teacher = lay(TEACHERS[name]()).eval()
        teacher = torch.compile(teacher) if form == "compiled" else teacher
        teach = lambda: teacher(x)
    elif name.endswith("_cached"):
        cache = torch.randn(CACHED_SAMPLES, classes, device=device)
        teach = lambda: cache[torch.randint(CACHED_SAMPLES, (batch,), device=device)]
    model = torch.compile(model) if form == "compiled" else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        if teach:
            with torch.inference_mode():
                targets = F.softmax(teach() / 4, dim=1)
            soft = F.kl_div(F.log_softmax(logits / 4, dim=1), targets.clone(), reduction="batchmean") * 16
            loss = 0.1 * loss + 0.9 * soft
        loss.backward()
        optimizer.step()

    return step


def main():
    name, threads, device = sys.argv[1], int(sys.argv[2]), torch.device(sys.argv[3])
    torch.set_num_threads(threads)
    on_gpu = device.type == "cuda"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = sys.argv[4] == "tf32"
    torch.backends.cudnn.benchmark = on_gpu
    images = len(CASES[name][1]) == 3
    forms = ["contiguous"] + ["channels_last"] * images + ["compiled"] * (on_gpu and name != "adamw")
    steppers = {}
    for form in forms:
        try:
            step = stepper(name, form, device)
            step()
            if on_gpu:
                torch.cuda.synchronize(device)
            steppers[form] = step
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            print("failed", form, said[:500], flush=True)
    print("ready", torch.__version__, *steppers, flush=True)
    for line in sys.stdin:
        form, n = line.split()[0], int(line.split()[1])
        block, times = n if on_gpu else 1, []
        for _ in range(n // block):
            start = time.perf_counter()
            for _ in range(block):
                steppers[form]()
            if on_gpu:
                torch.cuda.synchronize(device)
            times.append((time.perf_counter() - start) * 1e3 / block)
        print(" ".join(f"{t:.4f}" for t in times), flush=True)


main()
