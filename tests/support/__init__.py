"""What the tests share: a real process, a raw socket, and independent judges."""
