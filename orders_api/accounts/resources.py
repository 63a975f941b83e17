"""`/auth`: accounts and sessions."""

from typing import ClassVar

import falcon

from orders_api.accounts import services
from orders_api.accounts.passwords import Passwords
from orders_api.accounts.schemas import Credentials, Refreshment, Registration, token_document, user_document
from orders_api.accounts.tokens import AccessTokens
from orders_api.web.bodies import json_of
from orders_api.web.resources import Resource

_registration, _credentials, _refreshment = Registration(), Credentials(), Refreshment()


class Register(Resource):
    """`/auth/register`"""

    authenticated = False
    limits: ClassVar = ("ip", "auth")

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

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

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        session = services.log_in(**_credentials.parse(json_of(req)), passwords=self._passwords)
        _hand_out(resp, session, self._tokens)


class Refresh(Resource):
    """`/auth/refresh`"""

    authenticated = False
    limits: ClassVar = ("ip", "auth")

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        session = services.refresh(**_refreshment.parse(json_of(req)))
        _hand_out(resp, session, self._tokens)


class Logout(Resource):
    """`/auth/logout`"""

    limits: ClassVar = ("ip", "auth", "user")

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        services.log_out(req.context.user_id, req.context.session_id)
        resp.status = falcon.HTTP_204


class Me(Resource):
    """`/auth/me`"""

    limits: ClassVar = ("ip", "auth", "user")

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_header("Cache-Control", "private, no-cache")
        resp.media = user_document(services.user_of(req.context.user_id))


def _hand_out(resp: falcon.Response, session: services.OpenSession, tokens: AccessTokens) -> None:
    resp.set_header("Cache-Control", "no-store")
    resp.media = token_document(tokens.issue(session.user_id, session.id), session.refresh_token)
