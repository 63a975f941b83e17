"""The service with the defect that the environment names: DEFECT is a key of PLANTS."""

import os

from tests.proofs.defects import PLANTS

PLANTS[os.environ["DEFECT"]]()

from orders_api.wsgi import application  # noqa: E402  (it must be made of the defective parts)

__all__ = ["application"]
