"""The mathematics of zeroth-order optimisation. Knows no model, no data and no file."""
