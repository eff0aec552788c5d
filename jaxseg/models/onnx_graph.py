"""The U-net as an ONNX graph of standard operators, for use without JAX.

Converters from JAX fix the height and width of the images, which the localizer must not, so the
graph is built from the parameters. Tests compare it with `UNet` for every choice of blocks.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxseg.models.context import EXCHANGE, ZERO_LAYER
from jaxseg.models.layers import EPSILON
from jaxseg.models.unet import UNet

# Operators and format of 2021, which every runtime in use can read.
_OPSET, _IR_VERSION = 17, 8


def onnx_probabilities(network: UNet, params: Any, size: tuple[int, int] | None) -> bytes:
    """Convert the prediction of label probabilities to ONNX, with the parameters as constants.

    It computes in float32, whichever dtype the network computes in.

    Args:
      network: the segmentation generator, which takes images of one channel.
      params: its parameters.
      size: (H, W) of the network grid; None for every size that the network accepts.

    Returns:
      The content of an ONNX file with the input `images` (B, H, W) float32 and the output
      `probabilities` (B, H, W, L) float32, for any B of at least 1; with context, the images are
      one stack in order.

    Raises:
      ImportError: the package onnx is not installed.
    """
    from onnx import TensorProto, checker, helper

    graph = _Graph()
    _unet(graph, network, jax.device_get(params))
    shape = ["batch", *(size or ("height", "width"))]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "jaxseg",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
            [
                helper.make_tensor_value_info(
                    "probabilities", TensorProto.FLOAT, [*shape, network.num_labels]
                )
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="jaxseg",
    )
    checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """Nodes in the order of their computation, and constants; values go by their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def apply(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name


def _unet(graph: _Graph, network: UNet, params: Mapping[str, Any]) -> None:
    """`UNet.__call__` and softmax from `images` to `probabilities`, in between (B, C, H, W)."""
    x = graph.apply("Unsqueeze", "images", graph.constant(np.array([1])))
    skips = []
    for level in range(network.depth):
        x = _block(graph, network, params[f"encoder{level}"], x)
        skips.append(_exchanged(graph, network.groups, params.get(f"{EXCHANGE}{level}"), x))
        x = graph.apply("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = _block(graph, network, params["bottleneck"], x)
    x = _exchanged(graph, network.groups, params.get(f"{EXCHANGE}{network.depth}"), x)
    for level in reversed(range(network.depth)):
        x = _upsample(graph, params[f"up{level}"]["Dense_0"], x)
        x = graph.apply("Concat", skips[level], x, axis=1)
        x = _block(graph, network, params[f"decoder{level}"], x)
    logits = params["logits"]
    x = _convolution(graph, logits["kernel"][None, None], x, logits["bias"])
    x = graph.apply("Softmax", x, axis=1)
    graph.apply("Transpose", x, output="probabilities", perm=[0, 2, 3, 1])


def _block(graph: _Graph, network: UNet, params: Mapping[str, Any], x: str) -> str:
    y = _conv_norm_relu(graph, network.groups, params["conv1"], x)
    if network.dense:
        y = graph.apply("Concat", x, y, axis=1)
    y = _conv_norm_relu(graph, network.groups, params["conv2"], y)
    if not network.attention:
        return y
    gate = _conv_norm_relu(graph, network.groups, params["attention1"], x)
    gate = _convolution(graph, params["attention2"]["kernel"], gate, params["attention2"]["bias"])
    return graph.apply("Mul", y, graph.apply("Sigmoid", gate))


def _exchanged(graph: _Graph, groups: int, params: Mapping[str, Any] | None, x: str) -> str:
    """`Exchange` with the slices before and after each one, if there are parameters for it."""
    if params is None:
        return x

    def part(first: int, stop: int) -> str:
        bounds = (graph.constant(np.array([bound])) for bound in (first, stop, 0))
        return graph.apply("Slice", x, *bounds)

    last = np.iinfo(np.int64).max
    a = graph.apply("Concat", part(0, 1), part(0, -1), axis=0)
    b = graph.apply("Concat", part(1, last), part(-1, last), axis=0)
    pair = graph.apply("Max", a, b), graph.apply("Min", a, b)
    y = graph.apply("Concat", x, *pair, axis=1)
    y = _convolution(graph, params["mix"]["kernel"][None, None], y)
    y = graph.apply("Relu", _normalized(graph, groups, params["GroupNorm_0"], y))
    update = params[ZERO_LAYER]
    y = _convolution(graph, update["kernel"][None, None], y, update["bias"])
    return graph.apply("Add", x, y)


def _conv_norm_relu(graph: _Graph, groups: int, params: Mapping[str, Any], x: str) -> str:
    x = _convolution(graph, params["Conv_0"]["kernel"], x)
    return graph.apply("Relu", _normalized(graph, groups, params["GroupNorm_0"], x))


def _convolution(graph: _Graph, kernel: np.ndarray, x: str, bias: np.ndarray | None = None) -> str:
    """Convolve with a kernel (k, k, I, O), zero-padded to the same size."""
    constants = [kernel.transpose(3, 2, 0, 1), *([] if bias is None else [bias])]
    pads = [len(kernel) // 2] * 4
    return graph.apply("Conv", x, *map(graph.constant, constants), pads=pads)


def _normalized(graph: _Graph, groups: int, params: Mapping[str, Any], x: str) -> str:
    """`GroupNorm`: where a group has several channels, as one channel of all their pixels."""
    scale, shift = params["scale"], params["shift"]
    groups = min(groups, len(scale)) or len(scale)
    one, zero = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    shape = graph.apply("Shape", x)
    x = graph.apply("Reshape", x, graph.constant(np.array([0, groups, -1])))
    x = graph.apply(
        "InstanceNormalization", x, graph.constant(one), graph.constant(zero), epsilon=EPSILON
    )
    x = graph.apply("Reshape", x, shape)
    x = graph.apply("Mul", x, graph.constant(scale[:, None, None]))
    return graph.apply("Add", x, graph.constant(shift[:, None, None]))


def _upsample(graph: _Graph, params: Mapping[str, Any], x: str) -> str:
    """`Upsample`, whose dense layer gives the 2 x 2 pixels of each pixel one after another."""
    x = _convolution(graph, params["kernel"][None, None], x, params["bias"])
    return graph.apply("DepthToSpace", x, blocksize=2, mode="DCR")
