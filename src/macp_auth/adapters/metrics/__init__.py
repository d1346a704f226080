"""Prometheus metrics on a separate port; nothing here runs while they are off.

Each worker counts in a memory-mapped file (``cells.py``, ``meter.py``), which takes a fraction of a
microsecond and survives when the worker is killed. Once a second it writes its current state.

The first process reads the files of all workers (``workers.py``) and answers ``GET /metrics`` with the
metrics of ``exposition.py``, the only module that imports prometheus-client. The library's own
multiprocess mode was measured and rejected: 3.7 us a token instead of 0.7, and it would never remove the
gauge of a key that is gone.
"""
