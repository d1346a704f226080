"""Translates botocore's errors to macp-auth's.

AWS's texts are dropped: that of a refused request signature may repeat the request's headers, with the
session token. The error code and the request id are kept: CloudTrail has the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as aws  # type: ignore[import-untyped]  # botocore has no types

from macp_auth import SignerError, SignerMisconfigured, SignerRefused, SignerUnavailable

WITHDRAWN = {"key-missing", "key-disabled"}
"""The reasons for which a key can no longer sign."""
_REFUSED = {
    "AccessDeniedException": "permission-denied",
    "AccessDenied": "permission-denied",  # of STS, for a role's credentials
    "NotFoundException": "key-missing",
    "DisabledException": "key-disabled",
    "KMSInvalidStateException": "key-disabled",
    "ExpiredTokenException": "credentials-refused",
    "IncompleteSignatureException": "credentials-refused",
    "InvalidSignatureException": "credentials-refused",
    "MissingAuthenticationTokenException": "credentials-refused",
    "UnrecognizedClientException": "credentials-refused",
}
_REMEDIES = {
    "permission-denied": "allow it in the policies of the key and of the service's role",
    "key-missing": "set a key or alias that exists in this account and region",
    "key-disabled": "enable the key, or use another one",
    "credentials-refused": "renew the credentials, and check the clock",
}
_THROTTLED = {"LimitExceededException", "RequestLimitExceeded", "Throttling", "ThrottlingException"}
_UNFIT = {
    "InvalidArnException",
    "InvalidKeyUsageException",
    "UnsupportedOperationException",
    "ValidationException",
}
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translate the errors of the body; ``what`` is the beginning of their texts."""
    try:
        yield
    except aws.ClientError as error:
        raise _answered(error, what) from None
    except (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError) as error:
        raise SignerUnavailable(
            f"{what}: no AWS credentials ({type(error).__name__}); give the service a role",
            reason="no-credentials",
        ) from None
    except aws.NoRegionError:
        raise SignerMisconfigured(f"{what}: no AWS region; set AWS_REGION") from None
    except aws.ProfileNotFound:
        raise SignerMisconfigured(f"{what}: unknown profile in AWS_PROFILE; correct or unset it") from None
    except (aws.ConnectTimeoutError, aws.ReadTimeoutError):
        raise SignerUnavailable(f"{what}: KMS did not answer in time", reason="timeout") from None
    except (aws.HTTPClientError, aws.ConnectionError) as error:
        raise SignerUnavailable(
            f"{what}: cannot reach KMS ({type(error).__name__})", reason="unreachable"
        ) from None
    except aws.BotoCoreError as error:
        raise SignerUnavailable(f"{what}: the AWS client failed ({type(error).__name__})") from None
    except (LookupError, TypeError, ValueError) as error:
        raise SignerError(
            f"{what}: the answer can't be read ({type(error).__name__})", reason="bad-answer"
        ) from None


def _answered(error: aws.ClientError, what: str) -> SignerError:
    metadata = error.response.get("ResponseMetadata", {})
    status, code = metadata.get("HTTPStatusCode", 0), error.response.get("Error", {}).get("Code", "")
    text = f"{what}: {error.operation_name} answered {code} (request {metadata.get('RequestId', 'unknown')})"
    if code in _THROTTLED or status == _TOO_MANY_REQUESTS:
        return SignerUnavailable(f"{text}; ask AWS for a higher quota", reason="throttled")
    if status >= _SERVER_ERROR:
        return SignerUnavailable(text)
    if code in _UNFIT:
        return SignerMisconfigured(f"{text}; the setting must name keys for signing")
    reason = _REFUSED.get(code)
    return SignerRefused(f"{text}; {_REMEDIES[reason]}" if reason else text, reason=reason)
