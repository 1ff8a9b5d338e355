"""Whether a request is signed as AWS asks (Signature Version 4), by botocore's own arithmetic on what arrived."""

import hmac
import re
from collections.abc import Mapping

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lab.ses_conduct import Refusal

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/ses/aws4_request, "
    r"SignedHeaders=(?P<signed>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)


def signature_fault(http: web.BaseRequest, body: bytes, keys: Mapping[str, str]) -> Refusal | None:
    """The refusal of a request whose signature is missing, by a stranger, or not of this request."""
    found = _AUTHORIZATION.fullmatch(http.headers.get("Authorization", ""))
    if found is None:
        return Refusal("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
    if found["key"] not in keys:
        return Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
    auth = SigV4Auth(Credentials(found["key"], keys[found["key"]]), "ses", found["region"])
    names = found["signed"].split(";")
    headers = {name: http.headers.get(name, "") for name in names if name != "host"}
    request = AWSRequest(http.method, f"http://{http.host}{http.path_qs}", headers, body)
    request.context["timestamp"] = http.headers.get("X-Amz-Date", "")
    text = auth.string_to_sign(request, auth.canonical_request(request))
    if hmac.compare_digest(auth.signature(text, request), found["signature"]):
        return None
    return Refusal("InvalidSignatureException", "The request signature we calculated does not match.")
