"""Access tokens (JWT, RFC 8725 and RFC 9068) and refresh tokens (opaque)."""

import base64
import hashlib
import re
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import Any

import jwt

from orders_api.errors import Problem
from orders_api.settings import Ring
from orders_api.values import new_id, parse_id

ALGORITHM = "HS256"
TYPE = "at+jwt"
ISSUER = AUDIENCE = "orders-api"
LIFETIME_S = 15 * 60
MAX_CLOCK_SKEW_S = 5  # between hosts that issue and hosts that verify
MAX_CHARACTERS = 4096
REMEMBERED_S = 30
MAX_REMEMBERED = 10_000  # twice as many are kept at the most: about 10 MB a process
REFRESH_LIFETIME_S = 30 * 24 * 60 * 60
REQUIRED = ("iss", "aud", "sub", "sid", "iat", "exp", "jti")

# Three parts of base64url without padding. The last character of 32 bytes carries four bits: with the other two set
# it would be a second spelling of the same signature.
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]{42}[AEIMQUYcgkosw048]", re.ASCII)
_REFRESH = re.compile(r"([0-9a-f]{32})\.([\w-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says. `home`: the user's id as text, under which memcached keeps what is theirs."""

    user_id: uuid.UUID
    home: str
    session_id: uuid.UUID
    expires_at: int


class AccessTokens:
    """Issues with the first key of the ring, verifies with all."""

    def __init__(self, ring: Ring) -> None:
        self._signing = ring[0]
        self._secrets = {key.kid: key.secret for key in ring}
        # What was verified since the last turn and before it: old entries go, however many tokens there are.
        self._verified: dict[bytes, tuple[Claims, float]] = {}
        self._before: dict[bytes, tuple[Claims, float]] = {}
        self._turn_at = 0.0

    def issue(self, user_id: uuid.UUID, session_id: uuid.UUID) -> str:
        issued_at = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "iat": issued_at,
            "exp": issued_at + LIFETIME_S,
            "jti": new_id().hex,
        }
        headers = {"typ": TYPE, "kid": self._signing.kid}
        return jwt.encode(claims, self._signing.secret, ALGORITHM, headers=headers)

    def verify(self, text: str) -> Claims:
        """Raises Problem `token_expired` if that is all that is wrong, else `token_invalid`, and nothing else.

        That a signature was right is remembered for 30 s, by the token's hash; its expiry is checked each time.
        """
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        claims, until = self._verified.get(digest) or self._before.get(digest) or (None, 0.0)
        if claims is None or until < time.monotonic():
            try:
                claims = _checked(self._signed(text))
            except Exception:  # whatever a hostile text does to the decoders (nesting, odd types) makes it no token
                raise Problem("token_invalid") from None
            self._remember(digest, claims)
        if claims.expires_at <= time.time():
            raise Problem("token_expired")
        return claims

    def _remember(self, digest: bytes, claims: Claims) -> None:
        now = time.monotonic()
        if now >= self._turn_at or len(self._verified) >= MAX_REMEMBERED:
            self._before, self._verified = self._verified, {}
            self._turn_at = now + REMEMBERED_S
        self._verified[digest] = claims, now + REMEMBERED_S

    def _signed(self, text: str) -> dict[str, Any]:
        """The claims, if one of our keys signed them under exactly the header that we write."""
        if len(text) > MAX_CHARACTERS or not _COMPACT.fullmatch(text):
            raise ValueError("not a compact JWS")
        header = jwt.get_unverified_header(text)
        if header != {"alg": ALGORITHM, "typ": TYPE, "kid": header.get("kid")}:
            raise ValueError("not our header")
        return jwt.decode(
            text,
            self._secrets[header["kid"]],
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            # Times are checked by _checked, in whole seconds and with a bound on the lifetime.
            options={"require": list(REQUIRED), "verify_exp": False, "verify_iat": False, "strict_aud": True},
        )


def _checked(claims: dict[str, Any]) -> Claims:
    """Everything but the expiry. Raises ValueError."""
    user_id, session_id = parse_id(claims["sub"]), parse_id(claims["sid"])
    issued_at, expires_at = claims["iat"], claims["exp"]
    if user_id is None or session_id is None or not (isinstance(claims["jti"], str) and claims["jti"]):
        raise ValueError("malformed ids")
    if type(issued_at) is not int or type(expires_at) is not int:
        raise ValueError("times are whole seconds")
    if issued_at > time.time() + MAX_CLOCK_SKEW_S or not 0 < expires_at - issued_at <= LIFETIME_S:
        raise ValueError("a lifetime that we never give")
    return Claims(user_id, str(user_id), session_id, expires_at)


def new_refresh_token(user_id: uuid.UUID) -> tuple[str, bytes]:
    """A token of 256 random bits and the hash to store. It names its user: every query does."""
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    text = f"{user_id.hex}.{secret}"
    return text, hash_of(text)


def parse_refresh_token(text: str) -> tuple[uuid.UUID, bytes] | None:
    """Whose token it claims to be, and its hash; None if it is not written as ours are."""
    match = _REFRESH.fullmatch(text)
    return (uuid.UUID(match[1]), hash_of(text)) if match else None


def hash_of(refresh_token: str) -> bytes:
    """A fast hash is enough for 256 random bits."""
    return hashlib.sha256(refresh_token.encode()).digest()
