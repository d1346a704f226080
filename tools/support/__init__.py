"""What the tools share, and the tests with them: a real process, a raw socket, and independent judges."""
