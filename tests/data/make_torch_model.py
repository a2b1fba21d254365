"""Make `torch_net.onnx` and `torch_net_golden.npz`: a small PyTorch network by PyTorch's own export.

pip install torch==2.13.0 onnx onnxscript
python tests/data/make_torch_model.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch

HERE = Path(__file__).parent
ROWS = 16


class Net(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """A convolution, a normalisation, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.normalisation = torch.nn.BatchNorm2d(4)
        self.hidden = torch.nn.Linear(4 * 4 * 4, 8)
        self.logits = torch.nn.Linear(8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.normalisation(self.convolution(image)))
        pooled = torch.nn.functional.max_pool2d(features, 2)
        return torch.softmax(self.logits(torch.relu(self.hidden(pooled.flatten(1)))), dim=1)


torch.manual_seed(5)
net = Net().eval()
net.normalisation.running_mean.uniform_(-0.5, 0.5)
net.normalisation.running_var.uniform_(0.5, 1.5)
images = torch.randn(ROWS, 1, 8, 8)
program = torch.onnx.export(
    net,
    (images,),
    input_names=["image"],
    output_names=["probabilities"],
    dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
    opset_version=18,
    dynamo=True,
)
model = program.model_proto
# PyTorch notes with every node where in which source file it was written: paths of this machine.
for node in model.graph.node:
    del node.metadata_props[:]
onnx.save(model, HERE / "torch_net.onnx")
with torch.no_grad():
    expected = net(images).numpy()
np.savez(HERE / "torch_net_golden.npz", **{"input/image": images.numpy(), "output/probabilities": expected})
