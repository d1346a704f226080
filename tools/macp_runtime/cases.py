"""Tokens and JWK Sets, described: what a verifier may meet, one fault at a time.

In a text, ``@300@`` stands for the time of the recording plus 300 s, and ``@KEYS@`` for the list of keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field

from tools.macp_runtime import keys

ISSUER = "macp-auth-service"
AUDIENCE = "macp-runtime"
_CLAIMS = {
    "macp_scopes": "{}",
    "sub": '"agent://risk"',
    "iss": f'"{ISSUER}"',
    "aud": f'"{AUDIENCE}"',
    "iat": "@0@",
    "exp": "@300@",
}
_HEADER = {"alg": '"ES256"', "kid": '"k"'}


def _text(members: dict[str, str], *more: tuple[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in (*members.items(), *more)) + "}"


def _without(members: dict[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in members.items() if other != name}


class Case(Struct, frozen=True, omit_defaults=True):
    """One token and one JWK Set; by default a good pair."""

    id: str
    header: str = _text(_HEADER)
    payload: str = _text(_CLAIMS)
    signer: str = "p256"
    edit: str = ""
    """How the token is altered when it is signed: a name in ``_EDITS``."""
    keys: list[dict[str, Any]] = field(default_factory=lambda: [{"key": "p256", "kid": "k"}])
    """The JWKs: ``key`` names the pair, other members are set on it, and those that are null removed."""
    jwks: str = '{"keys":@KEYS@}'

    def document(self) -> str:
        """The JWK Set, as text."""
        return self.jwks.replace("@KEYS@", json.dumps([_jwk(dict(jwk)) for jwk in self.keys]))

    def token(self, now: int) -> str:
        """The token, as it is at ``now``."""
        header, payload = (
            keys.encode(
                re.sub(r"@(-?\d+)@", lambda hit: str(now + int(hit[1])), text).encode(
                    "utf-8", "surrogateescape"
                )
            )
            for text in (self.header, self.payload)
        )
        signature = keys.sign(self.signer, f"{header}.{payload}".encode())
        return _edited(self.edit, header, payload, signature, self.signer)


def _jwk(jwk: dict[str, Any]) -> dict[str, Any]:
    name = jwk.pop("key", None)
    whole = (keys.public(name) if name else {}) | jwk
    return {member: value for member, value in whole.items() if value is not None}


_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _edited(edit: str, header: str, payload: str, raw: bytes, signer: str) -> str:
    message, signature = f"{header}.{payload}", keys.encode(raw)
    token = f"{message}.{signature}"

    def resigned(text: str) -> str:
        return f"{text}.{keys.encode(keys.sign(signer, text.encode()))}"

    s = int.from_bytes(raw[32:64], "big")
    edits = {
        "": token,
        "padded signature": f"{token}==",
        "padded header": resigned(f"{header}==.{payload}"),
        "padded payload": resigned(f"{header}.{payload}="),
        "line feed at the end": f"{token}\n",
        "space in front": f" {token}",
        "space in the signature": f"{message}. {signature}",
        "line feed in the payload": resigned(f"{header}.{payload[:4]}\n{payload[4:]}"),
        "quoted": f'"{token}"',
        "Bearer in front": f"Bearer {token}",
        "four parts": f"{token}.x",
        "five parts": f"x.{token}.x",
        "two parts": message,
        "empty signature": f"{message}.",
        "empty payload": resigned(f"{header}."),
        "empty header": resigned(f".{payload}"),
        "standard alphabet": f"{message}.+{signature[1:]}",
        "spare bits in the signature": token[:-1] + chr(ord(token[-1]) + 1),
        "short signature": f"{message}.{keys.encode(raw[:-1])}",
        "long signature": f"{message}.{keys.encode(raw + bytes(1))}",
        "zero signature": f"{message}.{keys.encode(bytes(len(raw)))}",
        "other half": f"{message}.{keys.encode(raw[:32] + (_P256_ORDER - s).to_bytes(32, 'big'))}",
        "cut": token[:-8],
        "altered payload": f"{header}.{keys.encode(b'{}')}.{signature}",
        "not ASCII": f"{token}ä",
        "no dots": token.replace(".", ""),
    }
    return edits[edit]


_EDITS = [
    "padded signature",
    "padded header",
    "padded payload",
    "line feed at the end",
    "space in front",
    "space in the signature",
    "line feed in the payload",
    "quoted",
    "Bearer in front",
    "four parts",
    "five parts",
    "two parts",
    "empty signature",
    "empty payload",
    "empty header",
    "standard alphabet",
    "spare bits in the signature",
    "short signature",
    "long signature",
    "zero signature",
    "other half",
    "cut",
    "altered payload",
    "not ASCII",
    "no dots",
]
_VALUES = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "1.5",
    "1e3",
    "1e999",
    "18446744073709551615",
    "18446744073709551616",
    "1e300",
    '""',
    '"x"',
    '"\\ud800"',
    '"\udcff"',
    '"\\u0000"',
    '"\u202e"',
    "[]",
    '["x"]',
    '[""]',
    "[1]",
    "[null]",
    '["\\ud800"]',
    "[true,null]",
    "{}",
    '{"x":1}',
    '{"x":1,"x":2}',
    "[" * 200 + "]" * 200,
]
_SCOPES = [
    "can_start_sessions",
    "can_manage_mode_registry",
    "is_observer",
    "allowed_modes",
    "max_open_sessions",
]
_HEADER_NAMES = ["typ", "cty", "jku", "x5u", "x5t", "x5t#S256", "x5c", "jwk", "crit", "b64", "other"]
_EC_JWK = json.dumps(keys.public("p256"))


def all_cases() -> list[Case]:
    """Every case; those first whose verdict hangs on the second in which it is asked for."""
    return list({case.id: case for case in _each()}.values())


def _each() -> Iterator[Case]:
    yield from _times()
    yield Case("good")
    yield from (Case(f"token: {edit}", edit=edit) for edit in _EDITS)
    yield from _claims()
    yield from _scopes()
    yield from _headers()
    yield from _texts()
    yield from _keys()
    yield from _sets()


def _times() -> Iterator[Case]:
    for text in (
        "@-60@",
        "@-61@",
        "@-59@",
        "@-60@.0",
        "@-61@.5",
        "@-61@.4",
        "@-1@",
        "@0@",
        "@1@",
        "@300@.5",
        "@300@.0",
        "@300@e0",
        "@31536000@",
        "@31536001@",
        "@3153600000@",
        "1e10",
        "1e18",
        "9007199254740993",
        "99999999999999999999",
        '"@300@"',
        "[@300@]",
    ):
        yield Case(f"exp {text}", payload=_text(_CLAIMS | {"exp": text}))
    for text in ("@-3600@", "@0@", "@60@", "@61@", "@3600@", "@3600@.5", '"@3600@"', "@-3600@.5"):
        yield Case(f"nbf {text}", payload=_text(_CLAIMS | {"nbf": text}))
        yield Case(f"iat {text}", payload=_text(_CLAIMS | {"iat": text, "exp": "@7200@"}))


def _claims() -> Iterator[Case]:
    for name in (*_CLAIMS, "nbf", "other"):
        members = _without(_CLAIMS, name)
        if name in _CLAIMS:
            yield Case(f"{name} missing", payload=_text(members))
        for value in _VALUES:
            yield Case(f"{name} {_short(value)}", payload=_text(members | {name: value}))
        twice = _CLAIMS.get(name, "1")
        yield Case(f"{name} twice", payload=_text(members, (name, twice), (name, twice)))
    for name, right, wrong in (("iss", ISSUER, "x"), ("aud", AUDIENCE, "x")):
        values: list[Any] = [
            [right],
            [right, wrong],
            [wrong, right],
            [wrong],
            [right, right],
            [right, 1],
            [right, None],
            right.upper(),
            right + "/",
            right + " ",
            {"a": right},
        ]
        for value in values:
            text = json.dumps(value)
            yield Case(f"{name} {text}", payload=_text(_CLAIMS | {name: text}))
    for sub in (
        " ",
        "a b",
        "\u200b",
        "a\u200bb",
        "agent://\u202erisk",
        "a\u2028b",
        "\x85",
        "x" * 1100,
        "\U000e0001",
    ):
        text = json.dumps(sub)
        yield Case(f"sub {_short(text)}", payload=_text(_CLAIMS | {"sub": text}))
    yield Case("too large for metadata", payload=_text(_CLAIMS | {"other": f'"{"x" * 6500}"'}))


def _scopes() -> Iterator[Case]:
    for name in _SCOPES:
        for value in _VALUES:
            yield Case(
                f"{name} {_short(value)}", payload=_text(_CLAIMS | {"macp_scopes": f'{{"{name}":{value}}}'})
            )
        twice = f'{{"{name}":null,"{name}":null}}'
        yield Case(f"{name} twice", payload=_text(_CLAIMS | {"macp_scopes": twice}))
    for scopes in (
        '{"other":1e999}',
        '{"other":1,"other":1}',
        '{"other":"\\ud800"}',
        '{"\\ud800":1}',
        '{"can_start_session":false}',
        '{"Can_Start_Sessions":1}',
        '{"is\\u005fobserver":"x"}',
        '{"is\\u005fobserver":true,"is_observer":true}',
        "[true]",
        "[true,true,true]",
        "[true,false,true,[],3]",
        '[true,false,true,["a"],3,4]',
        "[1]",
        "[null,null,null,null,null]",
        '{"allowed_modes":["a","a"]}',
        '{"allowed_modes":["a",""]}',
        '{"can_start_sessions":true,"can_manage_mode_registry":true,"is_observer":true,"allowed_modes":["a"],"max_open_sessions":3}',
    ):
        yield Case(f"macp_scopes {scopes}", payload=_text(_CLAIMS | {"macp_scopes": scopes}))


def _headers() -> Iterator[Case]:
    for name in ("alg", "kid", *_HEADER_NAMES):
        for value in _VALUES:
            yield Case(f"header {name} {_short(value)}", header=_text(_HEADER | {name: value}))
        twice = _HEADER.get(name, "null")
        yield Case(
            f"header {name} twice", header=_text(_without(_HEADER, name), (name, twice), (name, twice))
        )
    for name in _HEADER:
        yield Case(f"header {name} missing", header=_text(_without(_HEADER, name)))
    for alg in (
        "none",
        "None",
        "HS256",
        "HS384",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "ES384",
        "ES512",
        "ES256K",
        "EdDSA",
        "es256",
        "ES256 ",
    ):
        yield Case(f"header alg {alg}", header=_text(_HEADER | {"alg": f'"{alg}"'}))
    for name, value in (
        ("alg", '{"ES256":null}'),
        ("alg", '{"ES256":1}'),
        ("alg", '["ES256"]'),
        ("kid", '"unknown"'),
        ("kid", '"K"'),
        ("kid", '"\\u006b"'),
        ("crit", '["exp"]'),
        ("crit", '["b64"]'),
        ("typ", '"JWT"'),
        ("typ", '"at+jwt"'),
        ("x5c", '["AAAA"]'),
        ("jwk", _EC_JWK),
        ("jwk", '{"kty":"EC"}'),
        ("jwk", '{"kty":"oct","k":"AAAA"}'),
        ("enc", '"A128GCM"'),
        ("zip", '"DEF"'),
    ):
        yield Case(f"header {name} {value}", header=_text(_HEADER | {name: value}))
    yield Case("header as a list", header='[null,"ES256",null,null,null,"k",null,null,null,null]')
    yield Case("header as a short list", header='["JWT","ES256"]')


def _texts() -> Iterator[Case]:
    for part, good in (("header", _text(_HEADER)), ("payload", _text(_CLAIMS))):
        for what, text in {
            "BOM": "\ufeff" + good,
            "white space around": f" \t\r\n{good}\n",
            "other white space": f"\x0c{good}",
            "trailing comma": good[:-1] + ",}",
            "garbage behind": good + "x",
            "two documents": good + good,
            "null byte behind": good + "\0",
            "a list": f"[{good}]",
            "a string": json.dumps(good),
            "null": "null",
            "empty": "",
            "cut": good[:-1],
            "single quotes": good.replace('"', "'"),
            "NaN": good[:-1] + ',"other":NaN}',
            "Infinity": good[:-1] + ',"other":-Infinity}',
            "leading zero": good[:-1] + ',"other":01}',
            "control character": good[:-1] + ',"other":"\n"}',
            "delete character": good[:-1] + ',"other":"\x7f"}',
            "bad escape": good[:-1] + ',"other":"\\x"}',
            "bad UTF-8 in a name": good[:-1] + ',"\udcff":1}',
            "lone surrogate in a name": good[:-1] + ',"\\udfff":1}',
            "reversed pair": good[:-1] + ',"other":"\\udc00\\ud800"}',
            "pair": good[:-1] + ',"other":"\\ud83d\\ude00"}',
            "repeats inside": good[:-1] + ',"other":{"a":1,"a":1}}',
            "comment": good[:-1] + "/* */}",
            "empty name": good[:-1] + ',"":1}',
            "proto": good[:-1] + ',"__proto__":{}}',
        }.items():
            yield _whole(f"{part} text: {what}", part, text)
    escaped = _text(_CLAIMS).replace('"exp"', '"e\\u0078p"')
    yield Case("payload text: escaped name", payload=escaped)
    yield Case("payload text: repeated by an escape", payload=escaped[:-1] + ',"exp":@300@}')
    yield Case(
        "payload text: UTF-16", payload=_text(_CLAIMS).encode("utf-16").decode("utf-8", "surrogateescape")
    )


def _whole(name: str, part: str, text: str) -> Case:
    return Case(name, header=text) if part == "header" else Case(name, payload=text)


def _rs(name: str, pair: str, **members: Any) -> Case:
    header = _text(_HEADER | {"alg": '"RS256"'})
    return Case(name, header=header, signer=pair, keys=[{"key": pair, "kid": "k"} | members])


def _keys() -> Iterator[Case]:
    for bits in (1024, 2032, 2040, 2041, 2047, 2048, 2049, 3072, 4096, 8192, 8193, 8200):
        yield _rs(f"RSA {bits}", f"rsa-{bits}-65537")
    for e in (3, 17, 257, 2**32 + 15, 2**33 - 9, 2**33 + 17, 2**64 + 13):
        yield _rs(f"RSA exponent {e}", f"rsa-2048-{e}")
    n = keys.public("rsa-2048-65537")["n"]
    even = keys.encode(b"\xff" * 255 + b"\xfe")
    marked: dict[str, dict[str, Any]] = {
        "exponent 1": {"e": "AQ"},
        "exponent 2": {"e": "Ag"},
        "exponent 0": {"e": "AA"},
        "other modulus": {"n": "x" + n[1:]},
        "exponent with leading zero": {"e": keys.encode(b"\0\1\0\1")},
        "padded exponent": {"e": "AQAB="},
        "padded modulus": {"n": n + "=="},
        "spare bits in the modulus": {"n": n[:-1] + chr(ord(n[-1]) + 1)},
        "even modulus": {"n": even},
        "no modulus": {"n": None},
        "empty exponent": {"e": ""},
        "number exponent": {"e": 65537},
        "private exponent": {"d": "AQAB"},
        "x5c beside": {"x5c": ["AAAA"]},
        "for ES256": {"alg": "ES256"},
        "for PS256": {"alg": "PS256"},
        "for RS512": {"alg": "RS512"},
    }
    for what, members in marked.items():
        yield _rs(f"RSA, {what}", "rsa-2048-65537", **members)
    zero_n = keys.encode(b"\0" + keys.decode(n))
    yield _rs("RSA, modulus with leading zero", "rsa-2048-65537", n=zero_n)
    yield _rs("RSA, x5c only", "rsa-2048-65537", n=None, e=None, x5c=["AAAA"])
    marked = {
        "use enc": {"use": "enc"},
        "use sig": {"use": "sig"},
        "use SIG": {"use": "SIG"},
        "use number": {"use": 1},
        "use empty": {"use": ""},
        "key_ops verify": {"key_ops": ["verify"]},
        "key_ops sign": {"key_ops": ["sign"]},
        "key_ops encrypt": {"key_ops": ["encrypt"]},
        "key_ops empty": {"key_ops": []},
        "key_ops text": {"key_ops": "verify"},
        "key_ops sign and verify": {"key_ops": ["sign", "verify"]},
        "alg ES256": {"alg": "ES256"},
        "alg ES384": {"alg": "ES384"},
        "alg RS256": {"alg": "RS256"},
        "alg number": {"alg": 1},
        "alg none": {"alg": "none"},
        "crv P-384": {"crv": "P-384"},
        "crv secp256k1": {"crv": "secp256k1"},
        "no crv": {"crv": None},
        "crv number": {"crv": 1},
        "no x": {"x": None},
        "empty y": {"y": ""},
        "y of another": {"y": keys.public("other")["y"]},
        "short x": {"x": keys.encode(bytes(31))},
        "x with leading zero": {"x": keys.encode(b"\0" + keys.decode(keys.public("p256")["x"]))},
        "padded x": {"x": keys.public("p256")["x"] + "="},
        "kty ec": {"kty": "ec"},
        "kty RSA": {"kty": "RSA"},
        "no kty": {"kty": None},
        "kid number": {"kid": 7},
        "no kid": {"kid": None},
        "kid other": {"kid": "other"},
        "exp in the past": {"exp": 1},
        "private part": {"d": "AAAA"},
        "unknown member": {"other": {"a": [1]}},
        "x5c beside": {"x5c": ["AAAA"]},
    }
    for what, members in marked.items():
        yield Case(f"EC, {what}", keys=[{"key": "p256", "kid": "k"} | members])
    yield Case("EC P-384 for ES256", signer="p384", keys=[{"key": "p384", "kid": "k"}])
    yield Case("P-256 signature, P-384 key", keys=[{"key": "p384", "kid": "k"}])
    hs = _text(_HEADER | {"alg": '"HS256"'})
    yield Case("oct HS256", header=hs, signer="oct", keys=[{"key": "oct", "kid": "k"}])
    yield Case("oct for ES256", keys=[{"key": "oct", "kid": "k"}])
    eddsa = _text(_HEADER | {"alg": '"EdDSA"'})
    yield Case(
        "Ed25519",
        header=eddsa,
        signer="ed25519",
        keys=[{"key": "ed25519", "kid": "k"}, {"key": "p256", "kid": "o"}],
    )
    yield Case("Ed25519 only", header=eddsa, signer="ed25519", keys=[{"key": "ed25519", "kid": "k"}])


def _sets() -> Iterator[Case]:
    this, other, rsa = ({"key": name, "kid": "k"} for name in ("p256", "other", "rsa-2048-65537"))
    unknown, none = _text(_HEADER | {"kid": '"unknown"'}), _text(_without(_HEADER, "kid"))
    yield Case("set: same kid, this first", keys=[this, other])
    yield Case("set: same kid, this last", keys=[other, this])
    yield Case("set: same kid, RSA first", keys=[rsa, this])
    yield Case("set: same key twice", keys=[this, this])
    yield Case("set: kid of another key", keys=[other, {**this, "kid": "o"}])
    yield Case("set: unknown kid, two keys", header=unknown, keys=[{**other, "kid": "o"}, this])
    yield Case("set: unknown kid, wrong key", header=unknown, keys=[other])
    yield Case("set: no kid, two keys", header=none, keys=[{**other, "kid": "o"}, this])
    yield Case("set: no kid, RSA and this", header=none, keys=[{**rsa, "kid": "o"}, this])
    yield Case("set: no kid, wrong key", header=none, keys=[other])
    yield Case("set: unusable key beside", keys=[{"key": "rsa-1024-65537", "kid": "o"}, this])
    yield Case("set: key of an unknown type beside", keys=[{"kty": "AKP", "kid": "o"}, this])
    yield Case("set: same kid on a key that can't be read", keys=[{**rsa, "n": ""}, this])
    for what, text in {
        "BOM": '\ufeff{"keys":@KEYS@}',
        "white space": ' {"keys": @KEYS@ }\n',
        "no keys": "{}",
        "empty": '{"keys":[]}',
        "a list": "@KEYS@",
        "keys is an object": '{"keys":{}}',
        "keys is null": '{"keys":null}',
        "repeated keys, this last": '{"keys":[],"keys":@KEYS@}',
        "repeated keys, this first": '{"keys":@KEYS@,"keys":[]}',
        "lone surrogate": '{"keys":@KEYS@,"other":"\\ud800"}',
        "number out of range": '{"keys":@KEYS@,"other":1e999}',
        "large number": '{"keys":@KEYS@,"other":1e300}',
        "NaN": '{"keys":@KEYS@,"other":NaN}',
        "deep": '{"keys":@KEYS@,"other":' + "[" * 200 + "]" * 200 + "}",
        "garbage behind": '{"keys":@KEYS@}x',
        "text": '"x"',
        "null": "null",
        "nothing": "",
        "number among the keys": '{"keys":[1]}',
        "null among the keys": '{"keys":[null]}',
        "a single key": '{"keys":[@KEYS@]}',
    }.items():
        yield Case(f"set text: {what}", jwks=text)


def _short(value: str) -> str:
    return ascii(value)[1:-1] if len(value) < 60 else f"of {len(value)} characters"
