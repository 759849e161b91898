"""Which input pixels an activation sees, and which axis holds its units, followed through one forward pass.

Formulas for receptive fields usually walk a list of layers, which fails for additions and concatenations written as
plain Python. Here a `TorchFunctionMode` sees every tensor operation of the pass and notes, for each tensor that
depends on the input, its receptive field and its unit axis. An operation without a rule gives "unknown", never a guess.

Rules: Araujo, Norris, Sim (2019), "Computing Receptive Fields of Convolutional Neural Networks", eqs. 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from neuronscope.units import ReceptiveField

_MAP_DIMS = 4


@dataclass(frozen=True)
class Trace:
    """What is known of one tensor.

    Attributes:
        field: receptive field of its positions; None where it is the whole image or unknown.
        axes: the (row, column) axes the field refers to, counted from the end.
        channel: the unit axis, counted from the end; None when unknown.
        constant: the tensor does not depend on the network's input.
    """

    field: ReceptiveField | None = None
    axes: tuple[int, int] = (-2, -1)
    channel: int | None = None
    constant: bool = False


_UNKNOWN = Trace()
_CONSTANT = Trace(constant=True)
_INPUT = Trace(ReceptiveField(size=(1, 1), stride=(1, 1), start=(0, 0)), channel=-3)


@dataclass(frozen=True)
class _Call:
    """One operation: its arguments and what is known of the tensors among them that depend on the input."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    live: tuple[tuple[Tensor, Trace], ...]

    def option(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    @property
    def only(self) -> tuple[Tensor, Trace] | None:
        """The one tensor that depends on the input, None when several do."""
        return self.live[0] if len({id(tensor) for tensor, _ in self.live}) == 1 else None


class Tracker(TorchFunctionMode):
    """Follows the input of a network through everything done to it while the mode is active.

    Args:
        source: the network's input, a (n, channels, height, width) tensor.
        constants: the network's parameters and buffers. A tensor that is none of these and was not made under the
            mode counts as unknown.
    """

    def __init__(self, source: Tensor, *, constants: Iterable[Tensor] = ()) -> None:
        """Note the input and the constants."""
        super().__init__()
        self._traces = WeakIdKeyDictionary()
        for constant in constants:
            self._traces[constant] = _CONSTANT
        self._traces[source] = _INPUT

    def trace(self, tensor: Tensor) -> Trace:
        """What is known of a tensor that was made under the mode."""
        found: Trace = self._traces[tensor] if tensor in self._traces else _UNKNOWN  # noqa: SIM401 `get` is untyped
        return found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, then note what is known of its results."""
        del types
        options = dict(kwargs or {})
        answer = func(*args, **options)
        name = getattr(func, "__name__", "").strip("_")
        if name == "setitem":  # writes into a tensor: from here on nothing is known of it
            self._traces[args[0]] = _UNKNOWN
            return answer
        results = list(_tensors(answer))
        if results:
            found = [(tensor, self.trace(tensor)) for tensor in _tensors((args, options))]
            live = tuple((tensor, trace) for tensor, trace in found if not trace.constant)
            call = _Call(args, options, live)
            traces = [_RULES.get(name, _unknown)(call, result) if live else _CONSTANT for result in results]
            for result, trace in zip(results, traces, strict=True):
                self._traces[result] = trace
        return answer


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    numbers = [int(number) for number in value]
    return (numbers[0], numbers[-1])


def _slide(
    field: ReceptiveField,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> ReceptiveField:
    """The field after a window slides over the map."""
    size, step, start = [], [], []
    for axis in (0, 1):
        reach = dilation[axis] * (kernel[axis] - 1)
        size.append(field.size[axis] + reach * field.stride[axis])
        step.append(field.stride[axis] * stride[axis])
        start.append(field.start[axis] - padding[axis] * field.stride[axis])
    return ReceptiveField((size[0], size[1]), (step[0], step[1]), (start[0], start[1]))


def _window_source(call: _Call) -> ReceptiveField | None:
    """The field of the map that a window slides over; None unless that map alone depends on the input."""
    if call.only is None:
        return None
    tensor, trace = call.only
    return trace.field if tensor.ndim == _MAP_DIMS and trace.axes == (-2, -1) else None


def _unknown(call: _Call, result: Tensor) -> Trace:
    del call, result
    return _UNKNOWN


def _conv2d(call: _Call, result: Tensor) -> Trace:
    del result
    field = _window_source(call)
    if field is None:
        return Trace(channel=-3)
    weight = call.option(1, "weight")
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    dilation = _pair(call.option(5, "dilation", 1))
    padding = call.option(4, "padding", 0)
    if padding == "same":  # torch puts the odd pixel at the end, so the start takes the smaller half
        pads = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
    else:
        pads = (0, 0) if padding == "valid" else _pair(padding)
    stride = _pair(call.option(3, "stride", 1))
    return Trace(_slide(field, kernel=kernel, stride=stride, padding=pads, dilation=dilation), channel=-3)


def _transposed(call: _Call, result: Tensor) -> Trace:
    del call, result
    return Trace(channel=-3)


def _pool2d(call: _Call, result: Tensor, *, dilation: tuple[int, int] = (1, 1)) -> Trace:
    del result
    field = _window_source(call)
    if field is None:
        return Trace(channel=-3)
    kernel = _pair(call.option(1, "kernel_size"))
    stride = call.option(2, "stride")
    padding = _pair(call.option(3, "padding", 0))
    step = _pair(stride) if stride not in (None, [], ()) else kernel
    return Trace(_slide(field, kernel=kernel, stride=step, padding=padding, dilation=dilation), channel=-3)


def _max_pool2d(call: _Call, result: Tensor) -> Trace:
    return _pool2d(call, result, dilation=_pair(call.option(4, "dilation", 1)))


def _adaptive_pool2d(call: _Call, result: Tensor) -> Trace:
    """An adaptive pool has one window size only where its output divides its input."""
    field = _window_source(call)
    if field is None or call.only is None:
        return Trace(channel=-3)
    before, after = call.only[0].shape[-2:], result.shape[-2:]
    if before == after:
        return Trace(field, channel=-3)
    if tuple(after) == (1, 1) or any(b % a for b, a in zip(before, after, strict=True)):
        return Trace(channel=-3)
    window = (before[0] // after[0], before[1] // after[1])
    return Trace(_slide(field, kernel=window, stride=window, padding=(0, 0)), channel=-3)


def _pad(call: _Call, result: Tensor) -> Trace:
    """Zeros around the map move its start; a border made of other pixels (reflected, copied) follows no such rule."""
    del result
    field, pads = _window_source(call), call.option(1, "pad", ())
    if field is None or len(pads) > _MAP_DIMS or call.option(2, "mode", "constant") != "constant":
        return Trace(channel=_channel(call))
    left, top = int(pads[0]), int(pads[2]) if len(pads) > 2 else 0  # noqa: PLR2004 pads are left, right, top, bottom
    return Trace(_slide(field, kernel=(1, 1), stride=(1, 1), padding=(top, left)), channel=-3)


def _channel(call: _Call) -> int | None:
    return next((trace.channel for _, trace in call.live if trace.channel is not None), None)


def _elementwise(call: _Call, result: Tensor) -> Trace:
    """Same position in, same position out; several inputs are seen together."""
    channel = _channel(call)
    field, axes = call.live[0][1].field, call.live[0][1].axes
    for tensor, trace in call.live:
        keeps = tensor.ndim >= -min(axes) and all(tensor.shape[axis] == result.shape[axis] for axis in axes)
        if field is None or trace.field is None or trace.axes != axes or not keeps:
            return Trace(channel=channel)
        field = _union(field, trace.field)
    return Trace(field, axes, channel)


def _union(one: ReceptiveField, other: ReceptiveField) -> ReceptiveField | None:
    """The smallest field around both; None when their positions move at different strides."""
    if one == other:
        return one
    if one.stride != other.stride:
        return None
    start = (min(one.start[0], other.start[0]), min(one.start[1], other.start[1]))
    ends = [max(one.start[i] + one.size[i], other.start[i] + other.size[i]) for i in (0, 1)]
    return ReceptiveField((ends[0] - start[0], ends[1] - start[1]), one.stride, start)


def _from_end(axis: int, dims: int) -> int:
    return axis if axis < 0 else axis - dims


def _along(position: int, name: str, default: int) -> Callable[[_Call, Tensor], Trace]:
    """An operation along one axis (concatenate, split, softmax): positions stay where that axis is not spatial."""

    def rule(call: _Call, result: Tensor) -> Trace:
        axis = call.option(position, name, default)
        trace = _elementwise(call, result)
        spatial = axis is None or _from_end(int(axis), call.live[0][0].ndim) in trace.axes
        return replace(trace, field=None) if spatial else trace

    return rule


def _batch_norm(call: _Call, result: Tensor) -> Trace:
    trace = _elementwise(call, result)
    # Statistics of the batch instead of the stored ones: every position sees every other.
    return replace(trace, field=None) if call.option(5, "training", default=False) else trace


def _whole_map_norm(call: _Call, result: Tensor) -> Trace:
    return replace(_elementwise(call, result), field=None)


def _layer_norm(call: _Call, result: Tensor) -> Trace:
    trace = _elementwise(call, result)
    normalised = len(call.option(1, "normalized_shape", ()))
    spatial = any(axis >= -normalised for axis in trace.axes)
    channel = -1 if normalised == 1 else trace.channel
    return Trace(None if spatial else trace.field, trace.axes, channel)


def _linear(call: _Call, result: Tensor) -> Trace:
    del result
    if call.only is None:
        return Trace(channel=-1)
    trace = call.only[1]
    return Trace(None if -1 in trace.axes else trace.field, trace.axes, -1)


def _reorder(call: _Call, order: Sequence[int]) -> Trace:
    """The trace after result axis `i` (from the start) took input axis `order[i]`."""
    tensor, trace = call.live[0]
    dims = tensor.ndim
    place = {_from_end(axis, dims): position - dims for position, axis in enumerate(order)}
    axes = (place[trace.axes[0]], place[trace.axes[1]]) if dims >= -min(trace.axes) else trace.axes
    channel = place.get(trace.channel) if trace.channel is not None else None
    return Trace(trace.field, axes, channel)


def _permute(call: _Call, result: Tensor) -> Trace:
    del result
    order = call.args[1:] or (call.kwargs["dims"],)
    return _reorder(call, order[0] if len(order) == 1 and not isinstance(order[0], int) else order)


def _transpose(call: _Call, result: Tensor) -> Trace:
    order = list(range(result.ndim))
    first, second = call.option(1, "dim0"), call.option(2, "dim1")
    order[first], order[second] = order[second], order[first]
    return _reorder(call, order)


def _reshape(call: _Call, result: Tensor) -> Trace:
    """Rows are stored last, so equal last two sizes mean that every position stays in its place."""
    tensor, trace = call.live[0]
    stays = trace.axes == (-2, -1) and result.ndim > 2 and tensor.shape[-2:] == result.shape[-2:]  # noqa: PLR2004 a map has more than rows and columns
    channel = None
    if trace.channel == -1 and tensor.shape[-1] == result.shape[-1]:
        channel = -1
    elif trace.channel == 1 - tensor.ndim and result.ndim > 1 and tensor.shape[1] == result.shape[1]:
        channel = 1 - result.ndim
    return Trace(trace.field if stays else None, trace.axes, channel)


def _unsqueeze(call: _Call, result: Tensor) -> Trace:
    trace = call.live[0][1]
    axis = _from_end(int(call.option(1, "dim")), result.ndim)
    channel = trace.channel if trace.channel is not None and axis < trace.channel else None
    return Trace(trace.field if axis < min(trace.axes) else None, trace.axes, channel)


def _index(call: _Call, result: Tensor) -> Trace:
    """Choosing images or channels keeps the positions; choosing among positions does not."""
    del result
    tensor, trace = call.live[0]
    key = call.args[1]
    parts = list(key) if isinstance(key, tuple) else [key]
    if not all(isinstance(part, int | slice) or part is Ellipsis for part in parts):
        return _UNKNOWN
    if Ellipsis in parts:
        gap = parts.index(Ellipsis)
        parts[gap : gap + 1] = [slice(None)] * (tensor.ndim - len(parts) + 1)
    parts += [slice(None)] * (tensor.ndim - len(parts))
    stays = all(parts[axis] == slice(None) for axis in trace.axes if tensor.ndim >= -axis)
    stays = stays and all(isinstance(part, slice) for part in parts[min(trace.axes) :])
    kept = trace.channel is not None and all(isinstance(part, slice) for part in parts[trace.channel :])
    return Trace(trace.field if stays else None, trace.axes, trace.channel if kept else None)


def _reduce(call: _Call, result: Tensor) -> Trace:
    """A sum or mean over units keeps the positions; over positions it sees the whole map."""
    tensor, trace = call.live[0]
    dims = call.option(1, "dim")
    if dims is None or isinstance(dims, Tensor):
        return _UNKNOWN
    axes = {_from_end(axis, tensor.ndim) for axis in ([dims] if isinstance(dims, int) else dims)}
    shifted = result.ndim != tensor.ndim and any(axis > min(trace.axes) for axis in axes)
    stays = not shifted and not axes & set(trace.axes)
    channel = trace.channel if result.ndim == tensor.ndim else None
    return Trace(trace.field if stays else None, trace.axes, channel)


_ELEMENTWISE = """
    relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh hardshrink softshrink
    tanhshrink sigmoid tanh softplus softsign logsigmoid log_sigmoid threshold clamp clip clamp_min clamp_max
    add sub subtract mul multiply div divide true_divide neg abs pow square sqrt rsqrt exp log reciprocal maximum
    minimum radd rsub rmul truediv rtruediv iadd isub imul itruediv ipow rpow where addcmul lerp
    dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout
    local_response_norm contiguous clone detach to type_as float double half bfloat16 requires_grad nan_to_num
""".split()  # noqa: SIM905 a list of eighty quoted words is harder to read

_RULES: dict[str, Callable[[_Call, Tensor], Trace]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    "conv2d": _conv2d,
    "conv_transpose2d": _transposed,
    "interpolate": _transposed,
    "pixel_shuffle": _transposed,
    "max_pool2d": _max_pool2d,
    "max_pool2d_with_indices": _max_pool2d,
    "avg_pool2d": _pool2d,
    "adaptive_avg_pool2d": _adaptive_pool2d,
    "adaptive_max_pool2d": _adaptive_pool2d,
    "adaptive_max_pool2d_with_indices": _adaptive_pool2d,
    "pad": _pad,
    "cat": _along(1, "dim", 0),
    "concat": _along(1, "dim", 0),
    "concatenate": _along(1, "dim", 0),
    "chunk": _along(2, "dim", 0),
    "split": _along(2, "dim", 0),
    "narrow": _along(1, "dim", 0),
    "softmax": _along(1, "dim", -1),
    "log_softmax": _along(1, "dim", -1),
    "batch_norm": _batch_norm,
    "group_norm": _whole_map_norm,
    "instance_norm": _whole_map_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "view": _reshape,
    "reshape": _reshape,
    "flatten": _reshape,
    "unflatten": _reshape,
    "unsqueeze": _unsqueeze,
    "getitem": _index,
    "mean": _reduce,
    "sum": _reduce,
    "amax": _reduce,
    "amin": _reduce,
}
"""Operation name, without underscores -> what becomes of the field."""
