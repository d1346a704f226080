"""Records what the real runtime says of each case: python -m tools.macp_runtime (needs cargo and protoc).

The runtime's crate is fetched from the registry and built for minutes, so no test does this; the tests
hold ``macp-auth verify`` to what was recorded. Arguments go to cargo: ``-j 1``, ``--target-dir DIR``. The
resolver of macp-runtime 0.6.0 is the same file, to the byte.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tools.macp_runtime.cases import AUDIENCE, ISSUER, all_cases
from tools.support.repository import ROOT

HERE = Path(__file__).parent
RECORDED = ROOT / "tests/data/runtime-verdicts.json"
CRATES = "macp-auth 0.13.0 (of macp-runtime 0.13.0), jsonwebtoken 9.3.1, ring 0.17.14, serde_json 1.0.154"


def main() -> None:
    build = ["cargo", "build", "--manifest-path", str(HERE / "Cargo.toml"), *sys.argv[1:]]
    run = ["cargo", "run", "--quiet", *build[2:]]
    subprocess.run(build, check=True)
    cases = all_cases()
    documents = [case.document() for case in cases]  # makes the keys, which takes seconds
    now = math.ceil(time.time()) + 20
    asked = [
        {"jwks": document, "token": case.token(now), "issuer": ISSUER, "audience": AUDIENCE}
        for case, document in zip(cases, documents, strict=True)
    ]
    lines = [json.dumps(question) + "\n" for question in asked]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runtime:
        assert runtime.stdin
        assert runtime.stdout
        runtime.stdin.write(lines[0])  # one that does not count: it is up when it has answered
        runtime.stdin.flush()
        runtime.stdout.readline()
        time.sleep(now - time.time())  # the first cases hang on the second
        answers = runtime.communicate("".join(lines))[0].rstrip("\n").split("\n")
    rows = [
        msgspec.to_builtins(case) | json.loads(answer) for case, answer in zip(cases, answers, strict=True)
    ]
    body = ",\n".join("    " + json.dumps(row) for row in rows)
    text = f'{{\n  "asked": "JwtBearerResolver of the crates {CRATES}, on tokens made from the cases",\n'
    RECORDED.write_text(f'{text}  "cases": [\n{body}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
