"""The path that users of timm and torchvision take to a device: their network, torch.onnx.export, ONNX Runtime."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

PEERS = {
    "mobilenet_v2": ("torchvision", "mobilenet_v2"),
    "mobilenet_v3_large": ("torchvision", "mobilenet_v3_large"),
    "mobilenet_v3_small": ("torchvision", "mobilenet_v3_small"),
    "mobileone_s0": ("timm", "mobileone_s0"),
    "efficientnet_lite0": ("timm", "efficientnet_lite0"),
    "lraspp": ("torchvision", "lraspp on mobilenet_v3_small"),
}


def peer(name: str, size: int) -> tuple[str, Callable[[], object]] | None:
    """What it is, and a call of it on one normalised float image, on one thread; None where no peer has it.

    ``name``: of a network, as of its result file; what stands before the first "-" is looked up, of a segmenter its
    head. Weights are random, which the time does not depend on; the number of classes hardly changes it.
    """
    key = "lraspp" if "lraspp" in name else name.partition("-")[0]
    if key not in PEERS or "ssd" in name:
        return None
    package, network = PEERS[key]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "peer.onnx"
        x = torch.zeros(1, 3, size, size)
        torch.onnx.export(_built(package, network).eval(), (x,), path, verbose=False, external_data=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image: dict[str, np.ndarray] = {session.get_inputs()[0].name: x.numpy()}
    return f"{package} {network}", lambda: session.run(None, image)


def _built(package: str, network: str) -> nn.Module:
    import timm
    import torchvision.models as tv
    from torchvision.models.segmentation import lraspp

    if package == "timm":
        return timm.create_model(network)
    if network.startswith("lraspp"):  # torchvision builds it for V3-Large only; these are the same pieces
        build: Any = lraspp._lraspp_mobilenetv3
        return _Out(build(tv.mobilenet_v3_small(dilated=True), 11))
    return tv.get_model(network)


class _Out(nn.Module):
    """Only the map of logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)["out"]
