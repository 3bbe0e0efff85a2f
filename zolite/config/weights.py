"""How frozen weights can be stored, and what is computed with them: rows that plans read without torch."""

from dataclasses import dataclass

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}  # by torch's names


@dataclass(frozen=True)
class WeightFormat:
    """A way to store the frozen linear layers. Embeddings, norms and the head stay in the activations' dtype."""

    bits: float  # a weight, with its share of the scales that blocks of weights have
    cpu: str  # dtype of activations on a CPU, which computes nothing faster than float32
    cuda: str  # and on a GPU
    correlation: float  # of measured loss differences with float32's at ε 1e-2 (docs/log.md)
    coded: bool = False  # codes are expanded to the activations' dtype for each product
    row_bytes: int = 0  # of the scale that each row of a layer's weight has

    @property
    def bytes(self) -> float:
        return self.bits / 8

    def dtype(self, device: str) -> str:
        """Of activations on a kind of device: "cpu", or that of a GPU."""
        return self.cpu if device == "cpu" else self.cuda

    def activation_bytes(self, device: str) -> int:
        return BYTES[self.dtype(device)]


WEIGHT_FORMATS = {
    # float16 is eight times finer than bfloat16, which zeroth-order differences need (docs/log.md).
    "int8": WeightFormat(8.0, "float32", "float16", 0.95, coded=True, row_bytes=4),
    "nf4": WeightFormat(4.5, "float32", "bfloat16", 0.85, coded=True),  # a float32 scale for 64 weights
    "bf16": WeightFormat(16.0, "bfloat16", "bfloat16", 0.97),
    "float32": WeightFormat(32.0, "float32", "float32", 1.0),
}

PACKED = ("bitsandbytes", "gptq", "awq", "fp8", "fbgemm_fp8", "mxfp4", "compressed-tensors")
"""Methods (`quant_method` of a config) that weights may be stored by: they are dequantized as they are loaded."""
