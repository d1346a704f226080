"""What the real MACP runtime says of tokens: how it was asked, and the cases."""
