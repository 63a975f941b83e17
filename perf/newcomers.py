"""A crowd for a service of which only the address is known: people register, log in and place their first orders.

perf/crowd.py makes a larger one, and needs the database.
"""

import random
import secrets
from collections.abc import Iterator

from perf.operations import Operations, Person
from perf.wire import Script, Wire

PEOPLE = 25  # they ask /auth twice, and once a second under load: within the 120 a minute that an address may
ORDERS = 20  # a page
AT_ONCE = 2  # a hash takes a processor


def settle(host: str, port: int) -> list[Person]:
    """Takes some ten seconds, most of them for hashing. The tokens are good for 15 minutes. Raises Wrong."""
    wire, operations = Wire(host, port), Operations(random.Random(1))  # noqa: S311  (the same orders each time)
    people = [_newcomer(number) for number in range(PEOPLE)]
    door = iter(people)
    for _ in range(AT_ONCE):
        wire.start(_arrive(operations, door))
    wire.finish()
    return people


def _arrive(operations: Operations, door: Iterator[Person]) -> Script:
    for person in door:
        yield from operations.register(person)
        yield from operations.login(person)
        for _ in range(ORDERS):
            yield from operations.create(person)


def _newcomer(number: int) -> Person:
    email, password = f"perf-{secrets.token_hex(8)}@example.com", secrets.token_urlsafe(15)
    return Person(f"198.18.0.{number + 1}", "", orders=[], pending=[], email=email, password=password)
