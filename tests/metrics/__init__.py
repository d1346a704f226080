"""The parts of the metrics."""
