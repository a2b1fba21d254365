"""What goes over the network: Open Inference messages in a private pool, tensors, status codes."""
