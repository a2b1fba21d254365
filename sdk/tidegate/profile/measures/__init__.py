"""What is measured on a row of each kind of tensor."""
