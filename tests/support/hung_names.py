"""A name whose name servers do not answer.

A library that is loaded before the C library hangs when the name is resolved.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.preload import preload

NAME = "hung.example.org"
_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    static __typeof__(getaddrinfo) *real;
    if (!real) real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (node && !strcmp(node, "hung.example.org")) sleep(60);
    return real(node, service, hints, found);
}
"""


def environment(directory: Path) -> dict[str, str]:
    """In which :data:`NAME` takes a minute to resolve."""
    return preload(directory, _SOURCE)
