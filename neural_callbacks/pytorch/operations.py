"""Operations: what one operation of torch costs, forward and backward, by the formulas of torch.utils.flop_counter."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from math import prod
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils import flop_counter

Cost = tuple[float, float]

FREE: Cost = (0.0, 0.0)
UNKNOWN: Cost = (math.nan, math.nan)


def _linear_flop(_inputs: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int]) -> int:
    return 2 * prod(out_shape) * weight[-1]


# All names are those of torch's own operations, "aten".
# Formulas beside those that torch has registered: its own formula of attention for the kernel of the CPU, and that of a
# matrix multiplication for the devices on which a linear layer is one operation.
_FORMULAS = {
    "_scaled_dot_product_flash_attention_for_cpu": flop_counter.sdpa_flop,
    "linear": flop_counter.shape_wrapper(_linear_flop),
}
# Where the two factors of a product stand among the arguments. The gradient of each is one more product of that size.
_FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "linear": (0, 1)}
_ATTENTION = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    }
)
# Operations that multiply matrices, or solve equations in them, and have no formula.
_UNCOUNTED = frozenset(
    {
        *("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_lstm_mps", "lstm", "gru", "rnn_tanh", "rnn_relu"),
        *(
            "matmul",
            "mv",
            "addmv",
            "addmv_",
            "addmm_",
            "baddbmm_",
            "addbmm",
            "addbmm_",
            "_trilinear",
            "_addmm_activation",
        ),
        *(
            "_grouped_mm",
            "_scaled_grouped_mm",
            "_int_mm",
            "_weight_int4pack_mm",
            "_weight_int8pack_mm",
            "_sparse_addmm",
        ),
        *("_euclidean_dist", "_cdist_forward", "_scaled_dot_product_fused_attention_overrideable"),
        *("_native_multi_head_attention", "_transformer_encoder_layer_fwd", "cholesky_inverse", "cholesky_solve"),
        *("linalg_cholesky_ex", "linalg_eig", "_linalg_eigh", "linalg_householder_product", "linalg_inv_ex"),
        *("linalg_lstsq", "linalg_lu_factor_ex", "linalg_lu_solve", "linalg_matrix_exp", "linalg_qr"),
        *("linalg_solve_triangular", "_linalg_det", "_linalg_solve_ex", "_linalg_svd"),
    }
)
# Whose operations multiply no matrices where they have no formula: torch's, and those that move data between processes.
_PLAIN = frozenset({"aten", "prim", "prims", "profiler", "c10d", "_c10d_functional", "c10d_functional", "fsdp"})

_APPLY = torch.autograd.Function.apply.__func__.__code__


def running_function() -> type[torch.autograd.Function] | None:
    """Return the innermost custom autograd function (a `torch.autograd.Function`) whose forward is running."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - torch does not tell
    while frame is not None:
        if frame.f_code is _APPLY:
            function: type[torch.autograd.Function] = frame.f_locals["cls"]
            return function
        frame = frame.f_back
    return None


def cost(func: Any, types: Sequence[type], args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> Cost:
    """Return the FLOPs of an operation, as `__torch_dispatch__` is told of it, forward and backward.

    Backward are those that its gradients will take if a gradient reaches `output`. NaN is what no formula tells: both
    for operations that multiply matrices and have none, for other libraries' kernels, for sparse matrices and for
    tensors of other classes, which may hold only a part; backward inside custom autograd functions, whose backward is
    the user's. What multiplies no matrices is free.
    """
    if not isinstance(func, OpOverload):
        return UNKNOWN
    packet = func.overloadpacket
    name = packet.__name__ if func.namespace == "aten" else ""
    formula = _FORMULAS.get(name) or flop_counter.flop_registry.get(packet)
    if formula is None:
        return UNKNOWN if func.namespace not in _PLAIN or name in _UNCOUNTED else FREE
    if any(kind is not Tensor and kind is not nn.Parameter for kind in types):
        return UNKNOWN
    factors = [argument for argument in args if isinstance(argument, Tensor)]
    if any(factor.layout is not torch.strided for factor in factors):
        return UNKNOWN
    forward = formula(*args, **kwargs, out_val=output)
    if not torch.is_grad_enabled():
        function = running_function()
        if function is None:
            return forward, 0.0
        # In what torch.compile made of a model only some of the operations can be seen.
        return UNKNOWN if function.__name__ == "CompiledFunction" else (forward, math.nan)
    if not any(factor.requires_grad for factor in factors):
        return forward, 0.0
    return forward, _backward(name, forward, args, output)


def _backward(name: str, forward: float, args: Sequence[Any], output: Any) -> float:
    if name in _FACTORS:
        return forward * sum(bool(args[place].requires_grad) for place in _FACTORS[name])
    if name == "convolution":
        inputs, weight, *rest = args
        wanted, gradients = (inputs.requires_grad, weight.requires_grad, False), (inputs, weight, None)
        return float(flop_counter.conv_backward_flop(output, inputs, weight, *rest, wanted, out_val=gradients))
    if name in _ATTENTION:
        return float(flop_counter.sdpa_backward_flop(output[0], *args[:3]))
    return math.nan
