"""Objects on S3-compatible storage, with the conditional writes that the hub rests on.

Cloudflare R2 refuses the checksums that boto3 sends of its own accord: they are switched off, and each object is sent in one
`put_object` with an explicit sha256, which the store checks and keeps. What is busy (429), broken (5xx) or cut is tried again a
bounded number of times, with growing pauses of random length; what is refused (credentials, clock, bucket) is said at once.

Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or the shared credentials file, never from settings,
and stand in no message: a sentence holds the store's error code, not its text.
"""

import base64
import hashlib
import io
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trademl.errors import MissingExtraError, UsageError
from trademl.ship.hub.objects import AbsentError, ConflictError, Found, Listed, Objects, RefusedError, Stat, check_key

ATTEMPTS = 5
FIRST_PAUSE_S, BUSY_PAUSE_S, LONGEST_PAUSE_S = 0.2, 1.0, 8.0  # R2 takes one write a second for each key
CONNECT_S, SILENCE_S = 10, 30  # to connect, and between two pieces of an answer
SLOWEST_BYTES_S = 20_000  # a body that trickles in more slowly than this, on top of SILENCE_S, is given up
CHUNK = 1 << 16
MAX_ANSWER = 16 << 20  # bytes of a listing or a refusal; a page of 1,000 names is half a million
MAX_PAGES = 10_000  # of a listing, 1,000 names each

_T = TypeVar("_T")
_Page = tuple[list[Listed], str | None]  # names, and the token of the next page
_BUSY = {"SlowDown", "TooManyRequests", "ThrottlingException", "RequestLimitExceeded", "429"}
_BROKEN = {"InternalError", "ServiceUnavailable", "RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_REFUSED = {
    "InvalidAccessKeyId": "the access key is not known there; correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not belong to the access key, or the request was altered; correct AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "these credentials may not do that there; a bot's may only read, publishing takes Object Read & Write",
    "Unauthorized": "the credentials are refused there; check them and that the token covers this bucket",
    "ExpiredToken": "the credentials have expired; make new ones",
    "ExpiredTokenException": "the credentials have expired; make new ones",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than the store allows (15 minutes); set it right",
    "RequestExpired": "this machine's clock is wrong by more than the store allows (15 minutes); set it right",
    "NoSuchBucket": "the bucket does not exist there; make it, or correct [hub] url",
    "InvalidArgument": "the request is refused; check that AWS_ACCESS_KEY_ID is a key of this store",
    "AuthorizationHeaderMalformed": "the request is refused; correct [hub] region",
    "InvalidRegionName": "the request is refused; correct [hub] region",
    "401": "the credentials are refused there; check them and that the token covers this bucket",
    "403": "the credentials are refused there, or have expired; check them and that the token covers this bucket",
}


class _BrokenAnswerError(Exception):
    """An answer that is cut, altered or not S3's; the text says what came."""


@dataclass(frozen=True)
class S3Objects(Objects):
    """A bucket, and a prefix inside it. `open_bucket` makes the client."""

    bucket: str
    client: Any = field(repr=False, compare=False)
    endpoint: str
    prefix: str = ""  # empty, or ends with /
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    @property
    def where(self) -> str:
        """Bucket and endpoint."""
        return f"s3://{self.bucket} at {self.endpoint}"

    def get(self, key: str, limit: int) -> Found:
        """The object's bytes, read to their stated length and no further."""

        def ask() -> Found:
            answer = self.client.get_object(**self._at(key))
            size, tag = answer.get("ContentLength"), answer.get("ETag")
            if not tag or size is None:
                raise _BrokenAnswerError("an answer without ETag and length, such as a proxy's own page")
            if size > limit:
                answer["Body"].close()
                raise RefusedError(f"{self.where}: {key} is {size:,} bytes long, at most {limit:,} are read; it is not what it is named")
            return Found(_read_body(answer["Body"], size), tag)

        return self._try(ask, key)

    def stat(self, key: str) -> Stat | None:
        """From the hash that the store kept; where it kept none, of the object itself."""

        def ask() -> Stat:
            answer = self.client.head_object(**self._at(key), ChecksumMode="ENABLED")
            size, tag, kept = answer.get("ContentLength"), answer.get("ETag"), answer.get("ChecksumSHA256")
            if not tag or size is None:
                raise _BrokenAnswerError("an answer without ETag and length, such as a proxy's own page")
            if kept and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
                return Stat(size, base64.b64decode(kept).hex(), tag)
            return Stat(size, hashlib.sha256(self.get(key, size).data).hexdigest(), tag)

        try:
            return self._try(ask, key)
        except AbsentError:
            return None

    def put(self, key: str, data: bytes, tag: str | None = None) -> None:
        """One conditional PUT."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        sha256 = hashlib.sha256(data)
        checksum = base64.b64encode(sha256.digest()).decode()

        def ask() -> None:
            answer = self.client.put_object(
                **self._at(key), Body=data, ChecksumSHA256=checksum, ContentType="application/octet-stream", **condition
            )
            if not answer.get("ETag"):
                raise _BrokenAnswerError("an answer without ETag, such as a proxy's own page")

        try:
            self._try(ask, key)
        except (ConflictError, AbsentError) as refusal:  # If-Match on nothing: some answer 404, some 412
            there = self.stat(key)
            if there is None or there.sha256 != sha256.hexdigest():  # equal: an answer was lost on the way
                what = "is gone" if there is None else "was changed"
                raise ConflictError(f"{self.where}: {key} {what} in the meantime; nothing was written") from refusal

    def list(self, prefix: str) -> Iterator[Listed]:
        """Page by page."""
        more: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            found, token = self._try(lambda more=more: self._page(prefix, more), prefix)
            yield from found
            if token is None:
                return
            more = {"ContinuationToken": token}
        raise RefusedError(f"{self.where}: a listing of more than {MAX_PAGES:,} pages; it is not the hub's")

    def delete(self, key: str) -> None:
        """Remove the object."""
        self._try(lambda: self.client.delete_object(**self._at(key)), key)

    def _page(self, prefix: str, more: dict) -> _Page:
        """One page, and the token of the next one; None: it was the last."""
        page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + prefix, **more)
        if "KeyCount" not in page:
            raise _BrokenAnswerError("an answer without a count, such as a proxy's own page")
        try:
            found = [Listed(one["Key"].removeprefix(self.prefix), one["Size"], one["LastModified"]) for one in page.get("Contents", [])]
            token = page["NextContinuationToken"] if page.get("IsTruncated") else None
        except KeyError as missing:
            raise _BrokenAnswerError(f"a listing without {missing}") from None
        if not all(one.key.startswith(prefix) for one in found) or (token is not None and token == more.get("ContinuationToken")):
            raise _BrokenAnswerError("a listing of other names than were asked for")
        return found, token

    def _at(self, key: str) -> dict:
        return {"Bucket": self.bucket, "Key": self.prefix + check_key(key)}

    def _try(self, ask: Callable[[], _T], key: str) -> _T:
        """Ask, and again while the store is busy or the way to it is broken. Raises RefusedError in one sentence."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError, PartialCredentialsError

        why = ""
        for attempt in range(ATTEMPTS):
            pause = FIRST_PAUSE_S
            try:
                return ask()
            except ClientError as refusal:
                code = str(refusal.response.get("Error", {}).get("Code", ""))
                status = refusal.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                self._raise_final(code, status, key)
                pause, why = BUSY_PAUSE_S if code in _BUSY or status == 429 else FIRST_PAUSE_S, f"{status} {code}".strip()
            except (NoCredentialsError, PartialCredentialsError):
                raise self._no_credentials() from None
            except ParamValidationError:
                raise RefusedError(f"{self.where}: this is not a bucket's name; correct [hub] url") from None
            except _BrokenAnswerError as broken:
                why = str(broken)
            except (BotoCoreError, OSError, EOFError, ValueError) as broken:  # cut, silent, unreachable, or XML that cannot be read
                why = type(broken).__name__
            if attempt + 1 < ATTEMPTS:
                self.sleep(pause + random.random() * min(pause * 2**attempt, LONGEST_PAUSE_S))
        raise RefusedError(f"{self.where}: no usable answer for {key or 'a listing'} in {ATTEMPTS} attempts (last: {why}); try later")

    def _raise_final(self, code: str, status: int, key: str) -> None:
        """What is not tried again."""
        if code in _CONFLICT or status in (409, 412):
            raise ConflictError(f"{self.where}: {key} is not what this write expects ({code})")
        if code in ("NoSuchKey", "NotFound", "404"):
            raise AbsentError(f"{self.where}: holds no {key}")
        sentence = _REFUSED.get(code) or _REFUSED.get(str(status))
        if sentence is not None and code not in _BROKEN:
            raise RefusedError(f"{self.where}: {sentence} ({code or status})")
        if code not in _BUSY | _BROKEN and 400 <= status < 500 and status not in (400, 408, 429):
            raise RefusedError(f"{self.where}: refuses {key or 'a listing'} ({status} {code})")

    def _no_credentials(self) -> UsageError:
        return UsageError(
            f"{self.where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of the shared credentials "
            "file in AWS_PROFILE"
        )


def open_bucket(bucket: str, endpoint: str | None, *, region: str = "auto", prefix: str = "") -> S3Objects:
    """A bucket with the credentials of this user's environment; nothing is sent yet. `endpoint` None: Amazon's own.

    Raises UsageError without credentials, and while boto's debug log, which writes signed headers, is on.
    """
    try:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise MissingExtraError("a hub on S3 needs the package boto3; pip install 'trademl[hub]'") from None
    _refuse_debug_log()
    session = botocore.session.Session()
    session.get_component("credential_provider").remove("iam-role")  # asks an address that only Amazon's machines have, and waits
    config = Config(
        retries={"total_max_attempts": 1},  # `_try` does it, and counts
        connect_timeout=CONNECT_S,
        read_timeout=SILENCE_S,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    try:
        found = session.get_credentials()
        client = session.create_client("s3", endpoint_url=endpoint, region_name=region, config=config) if found else None
    except (BotoCoreError, ValueError) as refusal:
        raise UsageError(
            f"s3://{bucket} at {endpoint or 'Amazon'}: {type(refusal).__name__}; correct [hub] endpoint, or AWS_PROFILE"
        ) from None
    objects = S3Objects(bucket, client, endpoint or "Amazon", prefix)
    if client is None:
        raise objects._no_credentials()
    client.meta.events.register_last("before-send.s3", _capped(client._endpoint.http_session))
    return objects


def _capped(session) -> Callable[..., Any]:
    """botocore's own sending, but for this: a listing or a refusal is read to MAX_ANSWER, and for a bounded time, not to its end."""

    def send(request, **_):
        from urllib3.response import HTTPResponse

        is_ours, request.stream_output = request.stream_output, True  # an object's body is read by `_read_body`
        response = session.send(request)
        if not is_ours or response.status_code >= 300:
            response.raw = HTTPResponse(io.BytesIO(_read_answer(response.raw)), preload_content=False)
        return response

    return send


def _read_answer(raw) -> bytes:
    """What a server says that is no object."""
    parts, left, end = [], MAX_ANSWER, time.monotonic() + 2 * SILENCE_S
    try:
        while part := raw.read1(CHUNK):
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise _BrokenAnswerError(f"an answer of more than {MAX_ANSWER:,} bytes")
            if time.monotonic() > end:
                raise _BrokenAnswerError(f"an answer that was not over after {2 * SILENCE_S} s")
    except _urllib3_error() as broken:
        raise _BrokenAnswerError(f"an answer that was cut ({type(broken).__name__})") from None
    except _BrokenAnswerError:
        raw.close()
        raise
    return b"".join(parts)


def _refuse_debug_log() -> None:
    loggers = {"boto3", "botocore", "urllib3", *logging.Logger.manager.loggerDict}
    mine = sorted(name for name in loggers if name.split(".")[0] in ("boto3", "botocore", "urllib3"))
    names = [name for name in mine if logging.getLogger(name).isEnabledFor(logging.DEBUG)][:3]
    if names:
        raise UsageError(f"the log of {', '.join(names)} is at DEBUG, which writes signed requests; set it to INFO to use the hub")


def _read_body(body, size: int) -> bytes:
    """Exactly `size` bytes; a body that ends early, goes on, or trickles is broken."""
    raw, parts, left = body._raw_stream, [], size  # StreamingBody.read waits for a full chunk, for as long as single bytes come
    allowed = SILENCE_S + size / SLOWEST_BYTES_S
    end = time.monotonic() + allowed
    try:
        while left > 0:
            part = raw.read1(min(left, CHUNK))
            if not part:
                raise _BrokenAnswerError(f"a body of {size - left:,} bytes, {size:,} were announced")
            parts.append(part)
            left -= len(part)
            if time.monotonic() > end:
                raise _BrokenAnswerError(f"a body that trickles: {size - left:,} of {size:,} bytes in {allowed:.0f} s")
    except _urllib3_error() as broken:
        raise _BrokenAnswerError(f"a body that was cut ({type(broken).__name__})") from None
    finally:
        if left:
            body.close()
    return b"".join(parts)


def _urllib3_error() -> type[Exception]:
    from urllib3.exceptions import HTTPError

    return HTTPError
