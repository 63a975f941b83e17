"""`/auth`: accounts and sessions."""

from typing import ClassVar

import falcon

from orders_api.accounts import services
from orders_api.accounts.documents import TokensShape, UserShape, token_document, user_document
from orders_api.accounts.passwords import Passwords
from orders_api.accounts.schemas import Credentials, Refreshment, Registration
from orders_api.accounts.tokens import AccessTokens
from orders_api.web.bodies import json_of
from orders_api.web.operations import Answer, operation
from orders_api.web.resources import Resource

_registration, _credentials, _refreshment = Registration(), Credentials(), Refreshment()


class Register(Resource):
    """`/auth/register`"""

    authenticated = False
    limits: ClassVar = ("ip", "auth")

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    @operation(
        "register",
        "Register an account",
        "The email is trimmed, and compared whatever its case. The password may hold any characters, but must not be"
        " one of the 3,000 most common ones.",
        Answer(201, "The account.", UserShape),
        body=_registration,
        examples={"ada": {"email": "ada@example.com", "password": "a long enough password"}},
        problems=("email_taken",),
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        user = services.register(**_registration.parse(json_of(req)), passwords=self._passwords)
        resp.status = falcon.HTTP_201
        resp.set_header("Cache-Control", "private, no-cache")
        resp.media = user_document(user)


class Login(Resource):
    """`/auth/login`"""

    authenticated = False
    limits: ClassVar = ("ip", "auth")

    def __init__(self, passwords: Passwords, tokens: AccessTokens) -> None:
        self._passwords, self._tokens = passwords, tokens

    @operation(
        "log_in",
        "Log in",
        "A wrong password and an unknown email get the same answer. After five failed attempts within 15 minutes the"
        " email is locked for 15 minutes.",
        Answer(200, "A session: an access token for 15 minutes, and a refresh token for a new pair.", TokensShape),
        body=_credentials,
        examples={"ada": {"email": "ada@example.com", "password": "a long enough password"}},
        problems=("credentials_invalid", "account_locked"),
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        session = services.log_in(**_credentials.parse(json_of(req)), passwords=self._passwords)
        _hand_out(resp, session, self._tokens)


class Refresh(Resource):
    """`/auth/refresh`"""

    authenticated = False
    limits: ClassVar = ("ip", "auth")

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    @operation(
        "refresh",
        "Get a new pair of tokens",
        "A refresh token is good once. Used again after more than 10 seconds it ends the whole session: one of the two"
        " who used it was a thief.",
        Answer(200, "A new pair.", TokensShape),
        body=_refreshment,
        examples={"token": {"refresh_token": "the one that came last"}},
        problems=("refresh_token_invalid",),
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        session = services.refresh(**_refreshment.parse(json_of(req)))
        _hand_out(resp, session, self._tokens)


class Logout(Resource):
    """`/auth/logout`"""

    limits: ClassVar = ("ip", "auth", "user")

    @operation(
        "log_out",
        "End the session",
        "Its refresh tokens stop working at once, its access tokens everywhere within 30 seconds.",
        Answer(204, "It has ended."),
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        services.log_out(req.context.user_id, req.context.session_id)
        resp.status = falcon.HTTP_204


class Me(Resource):
    """`/auth/me`"""

    limits: ClassVar = ("ip", "auth", "user")

    @operation("who_am_i", "Whose token is this?", "The account it belongs to.", Answer(200, "It.", UserShape))
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_header("Cache-Control", "private, no-cache")
        resp.media = user_document(services.user_of(req.context.user_id))


def _hand_out(resp: falcon.Response, session: services.OpenSession, tokens: AccessTokens) -> None:
    resp.set_header("Cache-Control", "no-store")
    resp.media = token_document(tokens.issue(session.user_id, session.id), session.refresh_token)
