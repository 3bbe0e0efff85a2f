"""Language models with frozen, quantized weights. Knows no method."""
