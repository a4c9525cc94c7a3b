"""Judges an export folder with other people's readers: onnx (full check, strict shapes), ONNX Runtime, safetensors.

    python check_export.py EXPORT
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import shape_inference
from safetensors.numpy import load_file


def calibrated_range(model: onnx.ModelProto) -> tuple[float, float]:
    """What the input of an int8 model is quantized from: inputs outside say nothing about it."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    scale, zero_point = float(values[node.input[1]]), int(values[node.input[2]])
    return -zero_point * scale, (255 - zero_point) * scale


def run_model(path: Path, batch: int, low: float, high: float) -> np.ndarray:
    """Outputs for `batch` samples, or for as many as a model of a fixed batch takes."""
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    shape = [size if isinstance(size, int) else batch for size in entry.shape]
    x = np.random.default_rng(1).uniform(low, high, shape).astype(np.float32)
    y = session.run(None, {entry.name: x})[0]
    assert y.shape[0] == shape[0] and np.isfinite(y).all(), f"{path.name}: outputs {y}"
    return y


def main() -> None:
    folder = Path(sys.argv[1])
    record = json.loads((folder / "export.json").read_text())
    for name, entry in record["files"].items():
        data = (folder / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], f"{name}: sha256 differs from export.json"
    answers = {}
    low, high = calibrated_range(onnx.load(folder / "model.int8.onnx"))
    for name in ["model.onnx", "model.int8.onnx"]:
        model = onnx.load(folder / name)
        onnx.checker.check_model(model, full_check=True)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        answers[name] = run_model(folder / name, 3, low, high)
        kinds = {node.op_type for node in model.graph.node}
        assert ("QuantizeLinear" in kinds) == (name == "model.int8.onnx"), f"{name}: {sorted(kinds)}"
        print(f"{name}: {len(model.graph.node)} nodes, checked, run by ONNX Runtime {onnxruntime.__version__}")
    spread = np.abs(answers["model.onnx"]).max()
    off = np.abs(answers["model.onnx"] - answers["model.int8.onnx"]).max()
    # Not an accuracy: catches a wrong scale or layout, which is off by the size of the outputs themselves.
    assert off < spread, f"int8 is off by {off}, outputs are up to {spread}"
    for name in ["model.safetensors", "model.int8.safetensors"]:
        tensors = load_file(folder / name)
        assert tensors, f"{name}: empty"
        print(f"{name}: {len(tensors)} tensors")


main()
