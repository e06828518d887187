"""Signatures: what botocore signs is accepted, and nothing that differs from it in anything."""

from __future__ import annotations

import hashlib
import string
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from replicator.control_api.callers import Caller, OpenCallers, SignedCallers
from replicator.control_api.canonical_request import RequestHead
from replicator.control_api.errors import EcrError
from replicator.control_api.sigv4 import read_signature
from replicator.core.names import AccountId, Region
from replicator.registry.identities import AccessKey, Identity, IdentityDirectory
from tests.support.clock import FakeClock

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
ARN = "arn:aws:iam::123456789012:user/dev"
KEY = AccessKey("AKIDEXAMPLE", Identity(ARN, AccountId("123456789012")), "a secret/+key")
SESSION = AccessKey("ASIDEXAMPLE", KEY.identity, "another secret", "a session token")
TARGET = "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories"
MISMATCH = "The request signature we calculated does not match the signature you provided."

words = st.text(alphabet=string.ascii_letters + string.digits + "-_.~", max_size=12)
values = st.text(alphabet=string.ascii_letters + string.digits + " -_.~/:;=+*&%$#@!()[]{}'\"<>?,|\\^`", max_size=30)


def signed(
    body: bytes = b"{}",
    *,
    key: AccessKey = KEY,
    path: str = "/",
    headers: dict[str, str] | None = None,
    at: datetime = NOW,
    region: str = "us-east-1",
    service: str = "ecr",
    expires: int | None = None,
) -> RequestHead:
    """Return a request as botocore signs it: in its headers, or with `expires` in its query."""
    request = AWSRequest(
        "POST",
        "http://127.0.0.1:5000" + path,
        headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": TARGET, **(headers or {})},
        data=body if expires is None else b"",  # botocore would make parameters of it
    )
    credentials = Credentials(key.id, key.secret, key.session_token)
    with patch("botocore.auth.get_current_datetime", lambda *_: at.replace(tzinfo=None)):
        if expires is None:
            SigV4Auth(credentials, service, region).add_auth(request)
        else:
            SigV4QueryAuth(credentials, service, region, expires=expires).add_auth(request)
    return head_of(request)


def head_of(request: AWSRequest) -> RequestHead:
    url = urlsplit(request.url)
    target = url.path + (f"?{url.query}" if url.query else "")
    return RequestHead("POST", target, multi([("Host", url.netloc), *request.headers.items()]))


def multi(pairs: Any) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def changed(head: RequestHead, *removed: str, **headers: str) -> RequestHead:
    """Return a request with other headers; `_` stands for `-`."""
    names = {name.replace("_", "-").lower() for name in headers} | {name.lower() for name in removed}
    kept = [(name, value) for name, value in head.headers.items() if name.lower() not in names]
    added = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return RequestHead(head.method, head.target, multi([*kept, *added]), head.is_secure)


def caller_of(
    head: RequestHead, body: bytes = b"{}", *, now: datetime = NOW, service: str = "ecr", region: str = "us-east-1"
) -> Caller:
    callers = SignedCallers(IdentityDirectory([KEY, SESSION]), Region(region), FakeClock(now.timestamp()))
    return callers.claim(head, service).check(hashlib.sha256(body).hexdigest())


def refusal(head: RequestHead, body: bytes = b"{}", **options: Any) -> tuple[str, str]:
    with pytest.raises(EcrError) as caught:
        caller_of(head, body, **options)
    return caught.value.code, str(caught.value)


class TestWhatBotocoreSigns:
    def test_the_owner_of_the_key_is_the_caller(self) -> None:
        caller = caller_of(signed())
        assert caller.key is KEY
        assert caller.principal.name == ARN

    def test_a_key_with_a_session_token(self) -> None:
        assert caller_of(signed(key=SESSION)).key is SESSION
        assert caller_of(signed(key=SESSION, expires=60), b"").key is SESSION

    @given(
        body=st.binary(max_size=200),
        segments=st.lists(words, max_size=4),
        query=st.lists(st.tuples(words, values), max_size=5),
        headers=st.dictionaries(
            words.filter(bool).map(lambda name: f"X-Test-{name.replace('~', '').replace('.', '')}"), values, max_size=5
        ),
    )
    def test_any_body_path_query_and_headers(
        self, body: bytes, segments: list[str], query: list[tuple[str, str]], headers: dict[str, str]
    ) -> None:
        written = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query if name)
        path = "/" + "/".join(segments) + (f"?{written}" if written else "")
        distinct = {name.lower(): value for name, value in headers.items()}
        assert caller_of(signed(body, path=path, headers=distinct), body).key is KEY

    @given(query=st.dictionaries(words.filter(bool), values, max_size=5), expires=st.integers(1, 604_800))
    def test_a_presigned_request(self, query: dict[str, str], expires: int) -> None:
        written = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
        head = signed(path=f"/?{written}", expires=expires)
        assert caller_of(head, b"", now=NOW + timedelta(seconds=expires)).key is KEY
        assert refusal(head, b"", now=NOW + timedelta(seconds=expires + 1))[1].startswith("Signature expired: ")

    def test_a_date_in_the_form_of_http(self) -> None:
        assert caller_of(signed(headers={"Date": "now"})).key is KEY

    def test_a_hash_that_is_stated_of_the_body(self) -> None:
        stated = hashlib.sha256(b"{}").hexdigest()
        head = signed(headers={"X-Amz-Content-SHA256": stated})
        assert caller_of(head).key is KEY
        assert refusal(head, b"{ }")[1].startswith(MISMATCH)


class TestUnsignedPayload:
    def test_it_is_taken_where_tls_protects_the_body(self) -> None:
        plain = signed(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
        secure = RequestHead(plain.method, plain.target, plain.headers, is_secure=True)
        assert caller_of(secure, b"anything").key is KEY

    def test_it_is_refused_elsewhere(self) -> None:
        head = signed(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
        assert refusal(head)[1].startswith(MISMATCH)


class TestTampering:
    @pytest.mark.parametrize(
        "head",
        [
            changed(signed(), X_Amz_Target=TARGET.replace("Describe", "Delete")),
            changed(signed(), Host="127.0.0.1:5001"),
            changed(signed(), Content_Type="text/plain"),
            changed(signed(), "Content-Type"),
            RequestHead("GET", "/", signed().headers),
            RequestHead("POST", "/?a=b", signed().headers),
            RequestHead("POST", "/x", signed().headers),
        ],
    )
    def test_another_request_than_the_signed_one_is_refused(self, head: RequestHead) -> None:
        code, message = refusal(head)
        assert code == "InvalidSignatureException"
        assert message.startswith(MISMATCH)

    def test_another_body_is_refused(self) -> None:
        assert refusal(signed(b"{}"), b'{"force":true}')[1].startswith(MISMATCH)
        assert refusal(signed(expires=60), b'{"force":true}')[1].startswith(MISMATCH)

    def test_another_secret_is_refused(self) -> None:
        other = AccessKey(KEY.id, KEY.identity, "not the secret")
        assert refusal(signed(key=other))[1].startswith(MISMATCH)

    @given(st.data())
    def test_no_character_of_the_signature_can_differ(self, data: st.DataObject) -> None:
        head = signed()
        header = head.headers["Authorization"]
        start = header.index("Signature=") + len("Signature=")
        index = data.draw(st.integers(start, len(header) - 1))
        letter = data.draw(st.sampled_from(string.printable[:94]).filter(lambda one: one not in {header[index], ","}))
        assert refusal(changed(head, Authorization=header[:index] + letter + header[index + 1 :]))

    @pytest.mark.parametrize("name", ["x-amz-target", "x-amz-date", "host"])
    def test_what_is_believed_must_be_signed(self, name: str) -> None:
        head = signed()
        header = head.headers["Authorization"]
        cut = header.replace(f";{name}", "").replace(f"{name};", "")
        assert cut != header
        code, message = refusal(changed(head, Authorization=cut))
        assert code == "InvalidSignatureException"
        assert "must be a 'SignedHeader' in the AWS Authorization." in message

    @pytest.mark.parametrize("name", ["X-Amz-Target", "Authorization", "X-Amz-Date", "Host"])
    def test_what_is_believed_must_be_there_once(self, name: str) -> None:
        head = signed()
        twice = RequestHead(head.method, head.target, multi([*head.headers.items(), (name, "another")]))
        assert refusal(twice)[0] == "IncompleteSignatureException"


class TestKeys:
    @pytest.mark.parametrize(
        "key",
        [
            AccessKey("AKIDUNKNOWN", KEY.identity, "a secret"),
            AccessKey(KEY.id, KEY.identity, KEY.secret, "a token that it does not have"),
            AccessKey(SESSION.id, SESSION.identity, SESSION.secret),
            AccessKey(SESSION.id, SESSION.identity, SESSION.secret, "another token"),
        ],
    )
    def test_a_key_that_nobody_has_or_with_another_token_is_not_recognised(self, key: AccessKey) -> None:
        assert refusal(signed(key=key)) == (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )


class TestTime:
    @pytest.mark.parametrize("minutes", [-15, 0, 15])
    def test_a_clock_may_be_wrong_by_15_minutes(self, minutes: int) -> None:
        assert caller_of(signed(at=NOW + timedelta(minutes=minutes))).key is KEY

    def test_an_old_signature_has_expired(self) -> None:
        assert refusal(signed(at=NOW - timedelta(seconds=901))) == (
            "InvalidSignatureException",
            "Signature expired: 20260506T065308Z is now earlier than 20260506T065309Z (20260506T070809Z - 15 min.)",
        )

    def test_a_signature_from_the_future_is_not_yet_current(self) -> None:
        assert refusal(signed(at=NOW + timedelta(seconds=901))) == (
            "InvalidSignatureException",
            "Signature not yet current: 20260506T072310Z is still later than 20260506T072309Z"
            " (20260506T070809Z + 15 min.)",
        )

    @pytest.mark.parametrize("expires", ["0", "604801", "-1", "soon", "9" * 30])
    def test_a_presigned_request_lasts_from_a_second_to_a_week(self, expires: str) -> None:
        head = signed(expires=60)
        other = RequestHead(
            head.method, head.target.replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}"), head.headers
        )
        assert refusal(other)[0] == "IncompleteSignatureException"


class TestScope:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"region": "eu-west-1"}, "Credential should be scoped to a valid region."),
            ({"service": "s3"}, "Credential should be scoped to correct service: 'ecr'."),
        ],
    )
    def test_a_signature_for_elsewhere_is_refused(self, options: dict[str, str], message: str) -> None:
        assert refusal(signed(**options)) == ("InvalidSignatureException", message)  # type: ignore[arg-type]
        with pytest.raises(EcrError) as caught:
            OpenCallers(Region("us-east-1")).claim(signed(**options), "ecr")  # type: ignore[arg-type]
        assert str(caught.value) == message

    def test_another_day_or_terminator_is_refused(self) -> None:
        head = signed()
        header = head.headers["Authorization"]
        day = refusal(changed(head, Authorization=header.replace("/20260506/", "/20260507/")))
        assert day[1].startswith("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date")
        end = refusal(changed(head, Authorization=header.replace("aws4_request", "aws5_request")))
        assert end[1] == "Credential should be scoped with a valid terminator: 'aws4_request'."

    @pytest.mark.parametrize("region", ["us-east-1", "us-west-2", "eu-west-1"])
    def test_ecr_public_has_its_own_regions_and_the_node_s(self, region: str) -> None:
        head = signed(region=region, service="ecr-public")
        assert caller_of(head, service="ecr-public", region="eu-west-1").key is KEY

    def test_ecr_public_is_not_in_other_regions(self) -> None:
        head = signed(region="eu-west-2", service="ecr-public")
        assert refusal(head, service="ecr-public", region="eu-west-1")[0] == "UnsupportedCommandException"


class TestOpenNode:
    def test_everybody_is_the_root(self) -> None:
        stranger = AccessKey("AKIDUNKNOWN", KEY.identity, "a secret")
        claim = OpenCallers(Region("us-east-1")).claim(signed(key=stranger), "ecr")
        assert claim.check("any").principal.is_root

    def test_but_a_web_page(self) -> None:
        with pytest.raises(EcrError, match="A web page may not ask this"):
            OpenCallers(Region("us-east-1")).claim(changed(signed(), Origin="https://example.com"), "ecr")


class TestMalformed:
    def test_without_any_signature(self) -> None:
        head = changed(signed(), "Authorization")
        assert refusal(head) == ("MissingAuthenticationTokenException", "Missing Authentication Token")
        assert OpenCallers(Region("us-east-1")).claim(head, "ecr").check("").key is None

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("Basic QVdTOnNlY3JldA==", "Unsupported AWS 'algorithm': 'Basic'."),
            ("", "Unsupported AWS 'algorithm': ''."),
            ("AWS4-HMAC-SHA256 Credential", "'Credential' not a valid key=value pair (missing equal-sign)"),
            ("AWS4-HMAC-SHA256 Credential=a/b", "Authorization header requires 'Signature' parameter."),
            ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=b", "exactly 5 slash-delimited elements"),
            ("AWS4-HMAC-SHA256 Credential=a, Credential=b", "more than once"),
            ("AWS4-HMAC-SHA256 " + "a" * 20_000, "too long"),
        ],
    )
    def test_a_header_that_cannot_be_read(self, header: str, message: str) -> None:
        code, text = refusal(changed(signed(), Authorization=header))
        assert code == "IncompleteSignatureException"
        assert message in text

    @pytest.mark.parametrize("date", ["", "yesterday", "20260506", "20261399T000000Z", "20260506T070809"])
    def test_a_date_that_cannot_be_read(self, date: str) -> None:
        assert refusal(changed(signed(), X_Amz_Date=date))[0] == "IncompleteSignatureException"

    def test_no_date_at_all(self) -> None:
        code, text = refusal(changed(signed(), "X-Amz-Date"))
        assert code == "IncompleteSignatureException"
        assert "requires existence of either a 'X-Amz-Date' or a 'Date' header" in text

    def test_no_password_is_repeated(self) -> None:
        _, text = refusal(changed(signed(), Authorization="AWS4-HMAC-SHA256 Credential=swordfish"))
        assert "swordfish" not in text

    @given(st.text(max_size=200))
    def test_no_header_breaks_it(self, header: str) -> None:
        for authorization in (
            header,
            f"AWS4-HMAC-SHA256 {header}",
            f"AWS4-HMAC-SHA256 Credential={header}, Signature=a",
        ):
            assert refusal(changed(signed(), Authorization=authorization))

    @given(st.text(alphabet=st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=100))
    def test_no_query_breaks_it(self, query: str) -> None:
        head = signed(expires=60)
        for target in (
            f"/?{query}",
            f"{head.target}&{query}=",
            f"/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={query}",
        ):
            other = RequestHead(head.method, target, head.headers)
            with pytest.raises(EcrError):
                caller_of(other)

    def test_bytes_that_are_no_text_break_nothing(self) -> None:
        odd = "\udcff"
        head = signed()
        for other in (
            changed(head, Authorization=head.headers["Authorization"].replace("AKIDEXAMPLE", odd)),
            changed(head, X_Amz_Target=odd),
            changed(head, X_Amz_Security_Token=odd),
            changed(head, X_Amz_Date=odd),
            changed(head, X_Amz_Content_Sha256=odd),
            RequestHead("POST", f"/{odd}", head.headers),
            RequestHead("POST", f"/?{odd}", head.headers),
        ):
            assert refusal(other)

    def test_a_signature_in_both_places_is_ambiguous(self) -> None:
        head = signed(expires=60)
        both = changed(head, Authorization=signed().headers["Authorization"])
        assert refusal(both)[0] == "IncompleteSignatureException"

    def test_a_parameter_that_is_there_twice_is_ambiguous(self) -> None:
        head = signed(expires=60)
        twice = RequestHead(head.method, f"{head.target}&X-Amz-Expires=600", head.headers)
        assert refusal(twice)[0] == "IncompleteSignatureException"

    def test_what_is_not_shown_in_logs(self) -> None:
        shown = repr(read_signature(signed(key=SESSION)))
        assert "a session token" not in shown
        assert signed().headers["Authorization"].rpartition("=")[2] not in shown
