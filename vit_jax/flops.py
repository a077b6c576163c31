"""Floating-point operations of a traced program, counted from its jaxpr: the operations that the maths needs, on any backend.

Matrix products and convolutions count, with a multiply and an add as two; elementwise work does not (under 1% of a ViT's).
Loop bodies count once per turn, and recomputation (remat) counts, because it runs.
"""

from __future__ import annotations

import math
from typing import Any


def count_flops(jaxpr: Any) -> int:
    """FLOPs of a jaxpr (open or closed), sub-programs included.

    Raises:
      NotImplementedError: a while loop contains matrix products, and the program does not give its number of turns.
    """
    total = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            total += _dot_general(eqn)
        elif name == "conv_general_dilated":
            total += _convolution(eqn)
        elif name == "cond":
            total += max(count_flops(branch) for branch in params["branches"])
        elif name == "while":
            if count_flops(params["body_jaxpr"]):
                raise NotImplementedError("FLOPs of a while loop of unknown length")
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(count_flops(p) for p in params.values() if hasattr(p, "eqns") or hasattr(p, "jaxpr"))
    return total


def _dot_general(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs, out = eqn.invars[0].aval, eqn.outvars[0].aval
    return 2 * math.prod(out.shape) * math.prod(lhs.shape[i] for i in contracted)


def _convolution(eqn: Any) -> int:
    kernel, out = eqn.invars[1].aval, eqn.outvars[0].aval
    outputs = eqn.params["dimension_numbers"].rhs_spec[0]  # the kernel's axis of output features
    # The gradient of a strided convolution pads its input with zeros, and multiplying by these is not needed.
    spread = math.prod(eqn.params["lhs_dilation"])
    return 2 * math.prod(out.shape) * (math.prod(kernel.shape) // kernel.shape[outputs]) // spread
