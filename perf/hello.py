"""What the same server can do at best: bare Falcon, one small JSON, nothing around it."""

import falcon


class Hello:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"message": "hello"}


application = falcon.App()
application.add_route("/hello", Hello())
