"""The last layer of a denoising network: find it, tap its input, follow its output.

The network output is a signed gather of F = W phi + b, where phi is a token (linear layer) or a
patch of channels (convolution), followed by a constant 1 when the layer has a bias. All of the
package works on phi in the layout (N, P, D): sample, position, feature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .laplace import LaplacePosterior

__all__ = [
    "LastLayer",
    "LastLayerError",
    "OutputMap",
    "check_fingerprint",
    "find_last_layer",
    "fingerprint",
    "trace_output_map",
    "weights_with_bias",
]

Forward = Callable[[], Tensor]

Positions = slice | Tensor
"""Some positions of a layer: a run of them, or their indices (p,)."""


class LastLayerError(ValueError):
    """The network has no last layer that the method can use."""


@dataclass(frozen=True)
class LastLayer:
    """A linear or convolutional layer whose weights carry the posterior.

    Attributes:
        name: Path of the layer in its network.
        module: The layer. It may keep its weights anywhere (quantised, offloaded, patched): only
            its input and output are touched.
        rows: Number R of its outputs.
        has_bias: Whether phi ends with a constant 1.
    """

    name: str
    module: nn.Module
    rows: int
    has_bias: bool

    @property
    def is_convolution(self) -> bool:
        """Whether phi is a patch of channels instead of a token."""
        return is_convolution(self.module)

    def features(self, activation: Tensor, positions: Positions = slice(None)) -> Tensor:
        """Features phi of the layer's input.

        Arguments:
            activation: Its input, shape (N, C_in, H, W), or (N, *T, C_in) if it is linear.
            positions: Some of the P positions, by default all.

        Returns:
            Float32, shape (N, p, D).
        """
        return self.gather(self.windows(activation), positions)

    def windows(self, activation: Tensor) -> Tensor:
        """What every position reads of the layer's input.

        Arguments:
            activation: Its input, shape (N, C_in, H, W), or (N, *T, C_in) if it is linear.

        Returns:
            A view of the padded input, shape (N, rows, width, *size). The positions of a
            convolution lie in rows, and size is (C_in, kernel height, kernel width); those of a
            linear layer make rows of one, and size is (C_in,).
        """
        if not self.is_convolution:
            return activation.flatten(1, -2).unsqueeze(2)
        module: Any = self.module
        vertical, horizontal = self._padding
        view = functional.pad(activation, (horizontal, horizontal, vertical, vertical))
        geometry = zip(module.kernel_size, module.stride, module.dilation, strict=True)
        for axis, (size, stride, dilation) in enumerate(geometry, 2):
            view = view.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        return view.permute(0, 2, 3, 1, 4, 5)

    def gather(self, windows: Tensor, positions: Positions) -> Tensor:
        """Features phi of some positions.

        Arguments:
            windows: From `windows`.
            positions: A run of positions, or their indices (p,).

        Returns:
            Float32, shape (N, p, D); a tensor of its own in any case.
        """
        width = windows.shape[2]
        if isinstance(positions, Tensor):
            positions = positions.to(windows.device)
            found = windows[:, None, positions // width, positions % width]
            inside = slice(None)
        else:
            first, last, _ = positions.indices(windows.shape[1] * width)
            top = first // width
            found = windows[:, top : -(-last // width)]
            inside = slice(first - top * width, last - top * width)
        size = found.shape[3:]
        features = size.numel() + self.has_bias
        phi = found.new_ones(*found.shape[:3], features, dtype=torch.float32)
        phi[..., : size.numel()].unflatten(-1, size).copy_(found)
        return phi.flatten(1, 2)[:, inside]

    def shift(self, activation: Tensor, delta: Tensor) -> Tensor:
        """Change of the layer's output when its weights move.

        Arguments:
            activation: Input of the layer.
            delta: Change of its weights, shape (R, D), the bias as last column.

        Returns:
            delta phi in the layout of the layer's output.
        """
        delta = delta.to(activation)
        bias = delta[:, -1] if self.has_bias else None
        weight = delta[:, :-1] if self.has_bias else delta
        if not self.is_convolution:
            return functional.linear(activation, weight, bias)
        module: Any = self.module
        weight = weight.unflatten(1, (-1, *module.kernel_size))
        return functional.conv2d(
            activation, weight, bias, module.stride, module.padding, module.dilation
        )

    def in_layout(self, outputs: Tensor, like: Tensor) -> Tensor:
        """Outputs (N, P, R) in the layout and type of `like`, an output of the layer."""
        if self.is_convolution:
            outputs = outputs.transpose(1, 2)
        return outputs.reshape(like.shape).to(like)

    @contextmanager
    def perturbed(self, deltas: Tensor, chunks: int = 1) -> Iterator[None]:
        """Within the context every copy of a batch runs with weights of its own.

        Arguments:
            deltas: Copy c has the weights W + deltas[c], shape (n, R, D).
            chunks: Parts of the layer's batch, such as the sides of guidance; each of them holds
                all n copies, one after another, so that the batch is `chunks` * n * rows long.
        """

        def add(activation: Tensor, output: Tensor) -> Tensor:
            inputs = activation.unflatten(0, (chunks, len(deltas), -1))
            shifts = [
                self.shift(inputs[:, c].flatten(0, 1), delta).unflatten(0, (chunks, -1))
                for c, delta in enumerate(deltas)
            ]
            return output + torch.stack(shifts, 1).flatten(0, 2)

        with self.override(add):
            yield

    @contextmanager
    def tap(self) -> Iterator[list[Tensor]]:
        """Within the context, collects the inputs of the layer in the list it yields."""
        activations: list[Tensor] = []

        def record(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            activations.append(inputs[0].detach())

        handle = self.module.register_forward_pre_hook(record)
        try:
            yield activations
        finally:
            handle.remove()

    @contextmanager
    def override(self, change: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
        """Within the context, the layer returns `change(input, output)`."""
        handle = self.module.register_forward_hook(
            lambda _module, inputs, output: change(inputs[0], output)
        )
        try:
            yield
        finally:
            handle.remove()

    @property
    def _padding(self) -> tuple[int, int]:
        module: Any = self.module
        if module.padding == "valid":
            return 0, 0
        if module.padding == "same":
            spans = zip(module.kernel_size, module.dilation, strict=True)
            vertical, horizontal = (dilation * (size - 1) // 2 for size, dilation in spans)
            return vertical, horizontal
        return module.padding


@dataclass(frozen=True)
class OutputMap:
    """Where every element of the network output comes from, for one shape of latent.

    Every element is sign * (W phi_p + b)[row].

    Attributes:
        position: Index p of the feature vector phi_p that made the element, shape (C, *S).
        row: Its row of W, shape (C, *S).
        sign: -1 where the network negates the layer, shape (C, *S).
        positions: Number P of the positions.
    """

    position: Tensor
    row: Tensor
    sign: Tensor
    positions: int

    def to_latent(self, values: Tensor) -> Tensor:
        """Gives every element of the latent the value of its position.

        Arguments:
            values: Shape (N, P).

        Returns:
            Shape (N, C, *S).
        """
        return values[:, self.position.to(values.device)]

    def gather(self, outputs: Tensor) -> Tensor:
        """Rearranges outputs of the layer as the network does.

        Arguments:
            outputs: Shape (N, P, R).

        Returns:
            Shape (N, C, *S).
        """
        device = outputs.device
        found = outputs[:, self.position.to(device), self.row.to(device)]
        return found * self.sign.to(device)

    def scatter(self, values: Tensor, rows: int) -> Tensor:
        """Outputs of the layer that the network rearranges into given values.

        Arguments:
            values: Shape (N, C, *S).
            rows: Number R of the layer's outputs.

        Returns:
            Shape (N, P, R); what does not reach the latent is zero.
        """
        device = values.device
        outputs = values.new_zeros(len(values), self.positions, rows)
        outputs[:, self.position.to(device), self.row.to(device)] = values * self.sign.to(device)
        return outputs

    def average(self, values: Tensor) -> Tensor:
        """Mean over the elements that share a position.

        Arguments:
            values: Shape (N, C, *S).

        Returns:
            Shape (N, P).
        """
        index = self.position.to(values.device).flatten()
        flat = values.flatten(1)
        total = flat.new_zeros(len(flat), self.positions).index_add_(1, index, flat)
        count = torch.bincount(index, minlength=self.positions).clamp(min=1)
        return total / count


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is a 2d convolution, quantised or not."""
    return isinstance(module, nn.Conv2d) or type(module).__name__ == "Conv2d"


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, quantised or not."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Linear"


def find_last_layer(network: nn.Module, forward: Forward) -> LastLayer:
    """The last linear or convolutional leaf that runs in one forward.

    Arguments:
        network: Its modules are watched.
        forward: Runs the network once.

    Raises:
        LastLayerError: If no such layer runs, if it runs more than once, or if its convolution is
            grouped or padded with anything but zeros.
    """
    order: list[str] = []
    rows: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            order.append(name)
            rows[name] = output.shape[1] if is_convolution(module) else output.shape[-1]

        return module.register_forward_hook(record)

    leaves = {
        name: module
        for name, module in network.named_modules()
        if is_convolution(module) or is_linear(module)
    }
    handles = [watch(name, module) for name, module in leaves.items()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    if not order:
        raise LastLayerError("No linear or convolutional layer ran, so there is no last layer.")
    name = order[-1]
    if order.count(name) > 1:
        raise LastLayerError(f"The last layer '{name}' runs {order.count(name)} times a forward.")
    module: Any = leaves[name]
    if is_convolution(module) and (module.groups != 1 or module.padding_mode != "zeros"):
        raise LastLayerError(f"The last layer '{name}' has groups or pads with more than zeros.")
    has_bias = getattr(module, "bias", None) is not None
    return LastLayer(name, module, rows[name], has_bias)


def trace_output_map(layer: LastLayer, forward: Forward) -> OutputMap:
    """The way from the layer's output to the network output, read off in one forward.

    The layer is made to return the numbers 1..n in float64, which are found again in the network
    output.

    Arguments:
        layer: The last layer of the network.
        forward: Runs one sample, returns the network output (1, C, *S).

    Raises:
        LastLayerError: If anything but a signed gather stands between the two, or the layer does
            not run exactly once.
    """
    shapes: list[torch.Size] = []

    def enumerate_elements(_input: Tensor, output: Tensor) -> Tensor:
        shapes.append(output.shape)
        codes = torch.arange(1, output.numel() + 1, dtype=torch.float64, device=output.device)
        return codes.view(output.shape)

    with layer.override(enumerate_elements):
        codes = forward()
    if len(shapes) != 1:
        raise LastLayerError(f"The last layer '{layer.name}' ran {len(shapes)} times, not once.")
    codes = codes[0].to("cpu", torch.float64)
    index = codes.abs().long() - 1
    count = shapes[0].numel()
    if not (codes.abs() == index + 1).all() or index.min() < 0 or index.max() >= count:
        raise LastLayerError(
            f"Between the layer '{layer.name}' and the network output stands more than a signed "
            "rearrangement, so its weights' posterior cannot be followed into the latent."
        )
    if layer.is_convolution:
        positions = count // layer.rows
        row, position = index // positions, index % positions
    else:
        positions = count // layer.rows
        position, row = index // layer.rows, index % layer.rows
    return OutputMap(position, row, codes.sign().float(), positions)


def weights_with_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    """The weights of a layer as one matrix.

    Arguments:
        weight: Shape (R, ...), of a linear layer or a convolution.
        bias: Shape (R,), or None.

    Returns:
        Shape (R, D): each row flattened, the bias as its last column.
    """
    weight = weight.detach().flatten(1)
    return weight if bias is None else torch.cat([weight, bias.detach()[:, None]], 1)


def fingerprint(layer_name: str, weights: Tensor) -> str:
    """Name, shape and content of a last layer as a short string.

    Arguments:
        layer_name: Path of the layer in its network.
        weights: Shape (R, D), the bias as last column; compared in float32.

    Returns:
        `name:RxD:` and 16 hexadecimal digits of the SHA-256 of the weights.
    """
    content = weights.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    shape = "x".join(map(str, weights.shape))
    return f"{layer_name}:{shape}:{hashlib.sha256(content).hexdigest()[:16]}"


def check_fingerprint(posterior: LaplacePosterior, expected: str) -> None:
    """Refuses a posterior that was fitted on another last layer.

    Arguments:
        posterior: With the fingerprint of the layer it was fitted on.
        expected: Fingerprint of the layer it is to be used with.

    Raises:
        ValueError: If they differ.
    """
    if posterior.fingerprint != expected:
        raise ValueError(
            f"This posterior was fitted on the layer {posterior.fingerprint}, the model has "
            f"{expected}. Run LaplaceFit on the model you sample with (LoRAs included)."
        )
