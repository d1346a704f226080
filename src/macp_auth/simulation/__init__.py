"""Simulates key rotations with many verifiers; not part of the service."""
