"""Asks the real MACP runtime about each token: python -m tools.drill.judges.macp_runtime_client TARGET."""

from __future__ import annotations

import sys
import time

import grpc
from macp.v1 import core_pb2, core_pb2_grpc

from tools.drill.judges.protocol import Verdict, serve

_ANSWER_SECONDS = 15


def main() -> None:
    with grpc.insecure_channel(sys.argv[1]) as channel:
        runtime = core_pb2_grpc.MACPRuntimeServiceStub(channel)

        def judge(tokens: list[str]) -> list[Verdict]:
            """By a call that only authenticates, for all of them at once."""
            calls = [
                runtime.ListSessions.future(
                    core_pb2.ListSessionsRequest(),
                    metadata=[("authorization", f"Bearer {token}")],
                    timeout=_ANSWER_SECONDS,
                )
                for token in tokens
            ]
            verdicts: list[Verdict] = []
            for call in calls:
                error = call.exception()
                verdicts.append((time.time(), error and f"{error.code().name}: {error.details()}"))
            return verdicts

        serve(judge)


if __name__ == "__main__":
    main()
