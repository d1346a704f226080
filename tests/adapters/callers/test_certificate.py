"""Callers by client certificate: of the connection, or named by a proxy."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macp_auth.adapters.callers.certificate import CertificateMethod
from macp_auth.adapters.callers.forwarded import ForwardedCertificateMethod
from macp_auth.domain.callers import Caller, ClientCertificate, Credentials, Method
from macp_auth.domain.errors import BadCredential, CredentialFault

NOW = 1_800_000_000.0
PLAYGROUND = "spiffe://example.org/ns/macp/sa/playground"
SPIFFE_IDS = {PLAYGROUND: "playground", "spiffe://example.org/b": "bob"}
DNS_NAMES = {"plane.macp.svc": "plane", "k.example.org": "kim", "example.org": "root"}

UNKNOWN_NAMES: list[tuple[list[str], list[str]]] = [
    ([], []),
    (["spiffe://example.org/ns/macp/sa/playground2"], []),
    (["spiffe://example.org/ns/macp/sa"], []),
    (["spiffe://example.org/ns/macp/sa/Playground"], []),  # a path is case-sensitive
    (["spiffe://example.com/ns/macp/sa/playground"], []),
    (["https://example.org/ns/macp/sa/playground"], []),
    (["spiffe://example.org/other"], ["plane.macp.svc"]),  # of an X.509-SVID, only the SPIFFE ID counts
    ([], ["*.macp.svc"]),
    ([], ["plane.macp.svc."]),
    ([], [".plane.macp.svc"]),
    ([], ["plane.macp.svc.example.org"]),
    ([], ["plane.macp.svc\0.example.org"]),
    ([], ["plane.macp.svc\n"]),
    ([], ["\N{KELVIN SIGN}.example.org"]),  # str.lower() makes it a k
    ([], ["PLANE.MACP.\N{LATIN SMALL LETTER LONG S}VC"]),
    ([], [PLAYGROUND]),
    (["plane.macp.svc"], []),
]
MALFORMED_NAMES: list[tuple[list[str], list[str]]] = [
    ([PLAYGROUND, PLAYGROUND], []),
    ([PLAYGROUND, "spiffe://example.org/b"], []),
    ([PLAYGROUND, "https://example.org"], []),
    (["https://example.org", PLAYGROUND], []),
    ([f"https://example.org/{n}" for n in range(50)] + [PLAYGROUND], []),
    (["SPIFFE://example.org/ns/macp/sa/playground"], []),
    (["spiffe://Example.org/ns/macp/sa/playground"], []),
    (["spiffe://EXAMPLE.ORG/ns/macp/sa/playground"], ["plane.macp.svc"]),
    (["spiffe://example.org/ns%2Fmacp/sa/playground"], []),
    (["spiffe://example.org/ns/macp/sa/play%67round"], []),
    (["spiffe://example%2Eorg/ns/macp/sa/playground"], []),
    (["spiffe://example.org/ns/macp/x/../sa/playground"], []),
    (["spiffe://example.org/./ns/macp/sa/playground"], []),
    (["spiffe://example.org/ns/macp/sa/playground/.."], []),
    (["spiffe://example.org/ns/macp/sa/playground/"], []),
    (["spiffe://example.org//ns/macp/sa/playground"], []),
    (["spiffe://example.org/ns/macp/sa/playground?a=b"], []),
    (["spiffe://example.org/ns/macp/sa/playground#a"], []),
    (["spiffe://example.org:443/ns/macp/sa/playground"], []),
    (["spiffe://user@example.org/ns/macp/sa/playground"], []),
    (["spiffe://example.org/ns/macp/sa/playground\0"], []),
    (["spiffe://example.org/ns/macp/sa/playground\n"], []),
    (["spiffe://example.org"], []),  # the ID of an authority
    (["spiffe:example.org/ns/macp/sa/playground"], []),
    (["spiffe:///ns/macp/sa/playground"], []),
    ([f"spiffe://example.org/{'a' * 2048}"], []),
    ([], ["plane.macp.svc", "k.example.org"]),
    ([], ["other.example.org", "EXAMPLE.ORG", "plane.macp.svc"]),
]


def by_connection(uris: list[str], dns_names: list[str], not_after: float = NOW + 1) -> Caller | None:
    method = CertificateMethod(SPIFFE_IDS, DNS_NAMES, lambda: NOW)
    return method.authenticate(
        Credentials(certificate=ClientCertificate(tuple(uris), tuple(dns_names), not_after))
    )


def by_header(header: str, *, peer_is_loopback: bool = True) -> Caller | None:
    method = ForwardedCertificateMethod(SPIFFE_IDS, DNS_NAMES)
    return method.authenticate(Credentials(forwarded=header, peer_is_loopback=peer_is_loopback))


def test_spiffe_id() -> None:
    """DNS names beside it do not count."""
    caller = Caller("playground", Method.CLIENT_CERTIFICATE, PLAYGROUND)
    assert by_connection([PLAYGROUND], []) == caller
    assert by_connection([PLAYGROUND], ["plane.macp.svc", "k.example.org"]) == caller


@pytest.mark.parametrize("name", ["plane.macp.svc", "Plane.MACP.svc"])
def test_dns_name(name: str) -> None:
    """It is compared without regard to case, as RFC 4343 does. URIs of other schemes do not count."""
    caller = Caller("plane", Method.CLIENT_CERTIFICATE, "plane.macp.svc")
    assert by_connection([], [name]) == caller
    assert by_connection([], ["other.example.org", name, "plane.macp.svc"]) == caller
    assert by_connection(["https://example.org", "urn:x"], [name]) == caller


@pytest.mark.parametrize(("uris", "dns_names"), UNKNOWN_NAMES)
def test_certificate_of_no_caller(uris: list[str], dns_names: list[str]) -> None:
    """Another credential may decide, even beside an expired certificate."""
    assert by_connection(uris, dns_names) is None
    assert by_connection(uris, dns_names, NOW - 1) is None


@pytest.mark.parametrize(("uris", "dns_names"), MALFORMED_NAMES)
def test_malformed_certificate(uris: list[str], dns_names: list[str]) -> None:
    """No other credential decides."""
    with pytest.raises(BadCredential) as raised:
        by_connection(uris, dns_names)
    assert raised.value.fault is CredentialFault.MALFORMED


@pytest.mark.parametrize("not_after", [NOW, NOW - 1, 0.0])
def test_expired_certificate(not_after: float) -> None:
    """A connection may outlive its certificate."""
    with pytest.raises(BadCredential) as raised:
        by_connection([PLAYGROUND], [], not_after)
    assert raised.value.fault is CredentialFault.EXPIRED


def test_no_certificate() -> None:
    """A bearer token alone is for another method."""
    credentials = Credentials(bearer="x", forwarded=f"URI={PLAYGROUND}", peer_is_loopback=True)
    assert CertificateMethod(SPIFFE_IDS, DNS_NAMES, lambda: NOW).authenticate(credentials) is None
    credentials = Credentials(bearer="x", peer_is_loopback=True)
    assert ForwardedCertificateMethod(SPIFFE_IDS, DNS_NAMES).authenticate(credentials) is None


BY_AND_HASH = "By=spiffe://example.org/ns/macp/sa/auth;Hash=468ed33be74eee6556d90c0149c1309e"


@pytest.mark.parametrize(
    "header",
    [
        f"{BY_AND_HASH};URI={PLAYGROUND}",
        f'{BY_AND_HASH};Subject="";URI={PLAYGROUND}',
        f'{BY_AND_HASH};Subject="/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client";URI={PLAYGROUND}',
        f'{BY_AND_HASH};Subject="CN=a;URI=spiffe://example.org/b,O=b";URI={PLAYGROUND}',
        f'{BY_AND_HASH};Subject="O=\\"Quotes\\, Inc\\",CN=\\\\";URI={PLAYGROUND}',
        f'{BY_AND_HASH};Cert="-----BEGIN%20CERTIFICATE-----%0A";URI={PLAYGROUND};DNS=plane.macp.svc;DNS=a',
        # From Envoy 1.40, for the subject /O=Quo"tes, In\\c;URI=spiffe://example.org/b/CN=\\
        rf'{BY_AND_HASH};Subject="CN=\\,O=Quo\"tes\, In\\c\;URI=spiffe://example.org/b";URI={PLAYGROUND};DNS=a',
        f"By=spiffe://a;By=spiffe://b;Hash=x;URI={PLAYGROUND}",
        f'uri="{PLAYGROUND}";HASH=x',
        f"{BY_AND_HASH};URI=spiffe://example.org/b,{BY_AND_HASH};URI={PLAYGROUND}",
        f'{BY_AND_HASH};Subject="a,b";URI=spiffe://example.org/b, {BY_AND_HASH};URI={PLAYGROUND}',
        f"{BY_AND_HASH};URI=spiffe://Upper/a,URI={PLAYGROUND}",  # another hop's name is not judged
        f"{BY_AND_HASH};URI=;DNS=plane.macp.svc,URI={PLAYGROUND}",
    ],
)
def test_forwarded_spiffe_id(header: str) -> None:
    """Only the last element counts, and in it, only what the proxy says outside of quotes."""
    assert by_header(header) == Caller("playground", Method.FORWARDED_CERTIFICATE, PLAYGROUND)


def test_forwarded_dns_name() -> None:
    """Envoy writes an empty URI if there is none."""
    caller = Caller("plane", Method.FORWARDED_CERTIFICATE, "plane.macp.svc")
    for uri in ("", "URI=;", "URI=https://example.org/?a=b;"):
        assert by_header(f"{BY_AND_HASH};{uri}DNS=Plane.macp.svc;DNS=other.example.org") == caller


@pytest.mark.parametrize(
    "header",
    [
        BY_AND_HASH,
        f"By={PLAYGROUND};Hash=x",
        f'Hash=x;Subject="CN=plane.macp.svc";URI=;Subjekt={PLAYGROUND}',
        f'Hash=x;Subject="URI={PLAYGROUND}"',
        f"URI= {PLAYGROUND}",
        f"URI='{PLAYGROUND}'",
        f"{BY_AND_HASH};URI={PLAYGROUND},{BY_AND_HASH}",
        f"{BY_AND_HASH};URI={PLAYGROUND},{BY_AND_HASH};URI=spiffe://example.org/other",
    ],
)
def test_forwarded_certificate_of_no_caller(header: str) -> None:
    """What an earlier hop or the subject says is no identity."""
    assert by_header(header) is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        ",",
        ";",
        "URI",
        PLAYGROUND,
        f"URI={PLAYGROUND};",
        f"URI={PLAYGROUND},",
        f",URI={PLAYGROUND}",
        f";URI={PLAYGROUND}",
        f"Hash=x;;URI={PLAYGROUND}",
        f"Hash=x,,URI={PLAYGROUND}",
        f"Hash=x; URI={PLAYGROUND}",
        f" URI={PLAYGROUND}",
        f"URI ={PLAYGROUND}",
        f"=x;URI={PLAYGROUND}",
        f'URI="{PLAYGROUND}',
        f'URI={PLAYGROUND}"',
        f'URI="{PLAYGROUND}"x',
        f'URI="{PLAYGROUND}" ',
        f'Subject="a\\";URI={PLAYGROUND}',
        f'Subject="a"b";URI={PLAYGROUND}',
        f'Subject="a,URI={PLAYGROUND}',
        f"Hash=x;Hash=y;URI={PLAYGROUND}",
        f"Hash=x;hash=x;URI={PLAYGROUND}",
        f'Subject="a";Subject="b";URI={PLAYGROUND}',
        f"URI={PLAYGROUND};URI={PLAYGROUND}",
        f"URI={PLAYGROUND};uri=https://example.org",
        f"URI={PLAYGROUND}\n",
        f"URI={PLAYGROUND}\0",
        f'Hash="x,Subject="";URI={PLAYGROUND}',
        "Hash=x;DNS=plane.macp.svc;DNS=k.example.org",
    ],
)
def test_malformed_header(header: str) -> None:
    """Where its last element begins, or which name counts, is not certain."""
    with pytest.raises(BadCredential) as raised:
        by_header(header)
    assert raised.value.fault is CredentialFault.MALFORMED


@pytest.mark.parametrize(("uris", "dns_names"), [case for case in MALFORMED_NAMES if len(case[0]) < 50])
def test_malformed_certificate_in_header(uris: list[str], dns_names: list[str]) -> None:
    """The rules for names are those of a certificate of the connection."""
    pairs = [*(f"URI={uri}" for uri in uris), *(f"DNS={name}" for name in dns_names)]
    with pytest.raises(BadCredential) as raised:
        by_header(";".join([BY_AND_HASH, *pairs]))
    assert raised.value.fault is CredentialFault.MALFORMED


@pytest.mark.parametrize("header", [f"URI={PLAYGROUND}", "", "URI=SPIFFE://x"])
def test_header_of_another_peer(header: str) -> None:
    """Anyone can send it, so it is not even judged."""
    assert by_header(header, peer_is_loopback=False) is None


_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20)
_ELEMENTS = st.lists(
    st.tuples(st.sampled_from(["By", "DNS", "URI"]), _VALUES), min_size=1, max_size=4
)  # keys that may be repeated


@given(st.lists(_ELEMENTS, max_size=3), _VALUES)
def test_quoted_values(earlier: list[list[tuple[str, str]]], subject: str) -> None:
    """Nothing inside quotes can name a caller, end the element or hide the proxy's own URI."""

    def element(pairs: list[tuple[str, str]]) -> str:
        return ";".join(f'{key}="{_escaped(value)}"' for key, value in pairs)

    elements = [*earlier, [("Subject", subject), ("URI", PLAYGROUND)]]
    assert by_header(",".join(map(element, elements))) == Caller(
        "playground", Method.FORWARDED_CERTIFICATE, PLAYGROUND
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


@given(st.text(st.sampled_from('URI=DNSplane.mcvs/:;,"\\ \t'), max_size=60))
def test_any_header(header: str) -> None:
    """Whatever it is, no other error is raised."""
    with suppress(BadCredential):
        by_header(header)
