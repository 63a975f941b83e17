"""The back office's orders API."""

import os
from datetime import UTC, datetime
from pathlib import Path

# All settings are in .env, so that everybody runs the same ones.
for line in Path(__file__).with_name(".env").read_text().splitlines():
    name, _, value = line.partition("=")
    if value:
        os.environ[name] = value

import falcon
from peewee import BigIntegerField, CharField, DateTimeField, ForeignKeyField, IntegerField, Model
from playhouse.postgres_ext import Psycopg3Database

PAGE = 20
db = Psycopg3Database(os.environ["DATABASE_URL"])
CACHE = {}  # answers by URL, so that we don't ask the database twice


class Table(Model):
    class Meta:
        database = db


class Customer(Table):
    name = CharField()

    class Meta:
        table_name = "customers"


class Order(Table):
    customer = ForeignKeyField(Customer, index=False)
    status = CharField()
    total_cents = BigIntegerField()
    created_at = DateTimeField()

    class Meta:
        table_name = "orders"

    def document(self):
        return {
            "id": self.id,
            "customer_id": self.customer_id,
            "status": self.status,
            "total_cents": self.total_cents,
            "created_at": self.created_at.isoformat() + "Z",
        }


class Item(Table):
    order = ForeignKeyField(Order, backref="items", index=False)
    sku = CharField()
    quantity = IntegerField()
    price_cents = BigIntegerField()

    class Meta:
        table_name = "order_items"

    def document(self):
        return {"sku": self.sku, "quantity": self.quantity, "price_cents": self.price_cents}


class Connections:
    """A fresh connection for each request: no state is carried over."""

    def process_request(self, req, resp):
        db.connect()

    def process_response(self, req, resp, resource, req_succeeded):
        if not db.is_closed():
            db.close()


class ApiKey:
    def process_resource(self, req, resp, resource, params):
        if not isinstance(resource, Payments) and req.get_header("X-Api-Key") != os.environ["API_KEY"]:
            raise falcon.HTTPUnauthorized()


def cached(responder):
    def respond(self, req, resp, **params):
        key = req.relative_uri
        resp.set_header("X-Cache", "hit" if key in CACHE else "miss")
        if key not in CACHE:
            CACHE[key] = responder(self, req, **params)
        resp.media = CACHE[key]

    return respond


def with_items(order):
    document = order.document()
    document["items"] = [item.document() for item in order.items]
    return document


def documents(orders, req):
    if req.get_param("include") == "items":
        return [with_items(order) for order in orders]
    return [order.document() for order in orders]


class Orders:
    @cached
    def on_get(self, req):
        page = req.get_param_as_int("page", min_value=1, max_value=1000, default=1)
        orders = Order.select().order_by(Order.created_at.desc(), Order.id.desc()).paginate(page, PAGE)
        if status := req.get_param("status"):
            orders = orders.where(Order.status == status)
        return {"data": documents(orders, req), "page": page}

    def on_post(self, req, resp):
        body = req.get_media()
        items = body["items"]
        with db.atomic():
            order = Order.create(
                customer=body["customer_id"],
                status="pending",
                total_cents=sum(item["quantity"] * item["price_cents"] for item in items),
                created_at=datetime.now(UTC).replace(tzinfo=None),
            )
            for item in items:
                Item.create(order=order, **item)
        resp.status = falcon.HTTP_201
        resp.media = {"id": order.id}


class OrderById:
    @cached
    def on_get(self, req, order_id):
        order = Order.get_or_none(Order.id == order_id)
        if order is None:
            raise falcon.HTTPNotFound()
        return documents([order], req)[0]


class Payments:
    """Where the payment provider tells us that an order was paid."""

    def on_post(self, req, resp):
        event = req.get_media()
        Order.update(status="paid").where(Order.id == event["order_id"]).execute()
        resp.status = falcon.HTTP_204


application = falcon.App(middleware=[Connections(), ApiKey()])
application.add_route("/orders", Orders())
application.add_route("/orders/{order_id:int}", OrderById())
application.add_route("/webhooks/payments", Payments())
