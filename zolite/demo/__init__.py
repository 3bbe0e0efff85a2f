"""The demo: the embedded model on the embedded messages, from first look to exported adapter."""
