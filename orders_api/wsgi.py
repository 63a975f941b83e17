"""What gunicorn loads."""

from orders_api.app import create_app
from orders_api.settings import Settings

application = create_app(Settings.from_env())
