"""Metrics for Prometheus, on a port of their own; nothing here runs while they are off.

Each worker counts in a file that is mapped into its memory (``cells.py``), which takes a fraction of a
microsecond and loses nothing when the worker is killed. How it is, rather than what it has done, it
writes once a second (:mod:`macp_auth.domain.worker_state`). ``meter.py`` is what a worker does of both.

The first process reads the files of all workers (``workers.py``), and answers ``GET /metrics``
with what ``exposition.py`` makes of them. Only that one imports prometheus-client. The
library's own multiprocess mode was measured and left: 3.7 us a token where this takes 0.7, and a gauge of
a key that is gone would stay for ever.
"""
