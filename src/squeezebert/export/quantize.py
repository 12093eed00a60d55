"""An fp32 ONNX file in, an int8 one out: weights rounded now, activations as they come. Serves the exporter."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from squeezebert.export.options import Embeddings
from squeezebert.export.packing import pack_words

QUANTISATION = (
    "dynamic: int8 weights, one scale a channel; uint8 activations, ranges taken per tensor and run; "
    "channels that stand out on built-in text scaled down before"
)
PACKED = "; word embeddings in 4 bits, a scale for each 64 channels"
# Never Conv: its dynamic form, ConvInteger, is slower than fp32
_OPERATORS = ("MatMul", "Gemm", "Gather")


def quantize_graph(source: Path, target: Path, embeddings: Embeddings = "int8") -> None:
    """Write the file at `source` with int8 products to `target`, and word embeddings in 8 bits or in 4.

    Weights use all 8 bits. Seven (`reduce_range`) would keep CPUs without VNNI from overflowing, but cost accuracy on
    every CPU; the runtime has those CPUs take exact products instead (`runtime.session.integer_products_saturate`).
    """
    proto = onnx.load(str(source))
    if embeddings == "int4":
        pack_words(proto)
    # The graph is already simplified; the mark keeps the quantiser from advising it on the root logger
    mark = proto.metadata_props.add()
    mark.key, mark.value = "onnx.quant.pre_process", "onnxruntime.quant"
    quantize_dynamic(
        proto,
        str(target),
        op_types_to_quantize=list(_OPERATORS),
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QInt8,
    )
