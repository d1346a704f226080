"""The verifiers, each a program of its own with its own cache of the published keys.

Each reads a line of JSON from standard input, a list of tokens, and writes a line: for each token the
time at which it was judged (seconds since the epoch) and the reason why it was rejected, or null. It
ends when its input does.
"""
