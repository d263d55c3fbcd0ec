"""Steps that make copies of training rows, and the chain that they form."""
