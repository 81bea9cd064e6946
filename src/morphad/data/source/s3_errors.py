"""What went wrong with an S3 server, in words that say what to do; no secret among them."""

from typing import Any

from botocore import exceptions as aws
from urllib3.exceptions import HTTPError

from morphad.base.errors import BadInputError, MorphadError, ServiceError
from morphad.base.text import masked

_CREDENTIALS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken", "Forbidden",
    "TokenRefreshRequired", "AllAccessDisabled", "AccountProblem", "InvalidClientTokenId", "403", "401",
}  # fmt: skip
_BUSY = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded", "RequestTimeout",
    "ServiceUnavailable", "InternalError", "TooManyRequests", "OperationAborted", "RequestThrottled",
}  # fmt: skip
_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "301", "IllegalLocationConstraintException"}

# No answer, or one that broke off: worth asking again, unless `is_final`.
UNREACHED = (aws.HTTPClientError, aws.ConnectionError, aws.ResponseStreamingError, aws.IncompleteReadError, HTTPError)


class ObjectGoneError(MorphadError):
    """An object that was listed is there no longer."""


def is_final(error: Exception) -> bool:
    """Whether asking again cannot help, although there was no answer."""
    return isinstance(error, aws.SSLError | aws.ProxyConnectionError)


def is_busy(error: aws.ClientError) -> bool:
    """Whether the server wants to be asked again later."""
    return code_of(error) in _BUSY or status_of(error) in {429, 500, 502, 503, 504}


def status_of(error: aws.ClientError) -> int:
    """The status of the answer, such as 404; 0 where there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: aws.ClientError) -> str:
    """S3's word for what is wrong."""
    details: dict[str, Any] = error.response.get("Error", {})
    return str(details.get("Code", "unknown"))


def refused(error: aws.ClientError, endpoint: str, bucket: str, key: str) -> MorphadError:
    """For an answer that says no."""
    code, place = code_of(error), f"S3 at {endpoint}"
    if code == "NoSuchBucket":
        return BadInputError(f"{place}: there is no bucket {bucket}; check the address and AWS_ENDPOINT_URL_S3")
    if status_of(error) == 404:
        return ObjectGoneError(f"s3://{bucket}/{key}: not found")
    if code == "RequestTimeTooSkewed":
        return ServiceError(
            f"{place}: this machine's clock and the server's are too far apart ({code}); set the clock (NTP)"
        )
    if code in _REGION:
        return BadInputError(f"{place}: bucket {bucket} is in another region ({code}); set AWS_REGION to it")
    if code in _CREDENTIALS or status_of(error) in {401, 403}:
        return ServiceError(
            f"{place}: refused access to bucket {bucket} ({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "AWS_SESSION_TOKEN or AWS_PROFILE, and what they are allowed to do"
        )
    return ServiceError(f"{place}: refused {error.operation_name} of s3://{bucket}/{key} ({code})")


def failed(error: Exception, endpoint: str, bucket: str) -> MorphadError:
    """For a request that could not be made."""
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.CredentialRetrievalError):
        return BadInputError(
            "S3: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, aws.TokenRetrievalError | aws.SSOError):
        return BadInputError(f"S3: the login has expired ({type(error).__name__}); log in again")
    if isinstance(error, aws.ParamValidationError):
        return BadInputError(f"s3://{bucket}: {one_line(error)}")
    return ServiceError(f"S3 at {endpoint}: {one_line(error)}; check AWS_ENDPOINT_URL_S3 and AWS_CA_BUNDLE")


def one_line(error: BaseException) -> str:
    """What an error says, without a password that an address may hold."""
    return masked(" ".join(str(error).split()))[:300] or type(error).__name__
