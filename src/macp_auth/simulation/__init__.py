"""Key rotations played against many verifiers: no part of the service."""
