"""The yardstick: what ``cryptography`` alone takes for the signature, on this machine and now.

Seconds differ from machine to machine; the ratio of a token to its signature hardly does.
"""

from __future__ import annotations

import os
import time
import timeit
from collections.abc import Callable
from statistics import median

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from macp_auth.adapters.jose import PrivateKey

SIGNING_INPUT_BYTES = 300  # header and claims of a token with some scopes, in base64url
BATCHES = 3  # of at least 0.2 s each, as timeit sizes them


def cpu_us(key: PrivateKey) -> float:
    """Microseconds of CPU that one signature takes."""
    timer = timeit.Timer(_signing(key), timer=time.process_time)
    signatures, _ = timer.autorange()
    return median(timer.repeat(BATCHES, signatures)) / signatures * 1e6


def _signing(key: PrivateKey) -> Callable[[], bytes]:
    signing_input = os.urandom(SIGNING_INPUT_BYTES)
    if isinstance(key, rsa.RSAPrivateKey):
        pkcs1v15, sha256 = padding.PKCS1v15(), hashes.SHA256()
        return lambda: key.sign(signing_input, pkcs1v15, sha256)
    ecdsa = ec.ECDSA(hashes.SHA256())
    return lambda: key.sign(signing_input, ecdsa)
