"""What `make run` says when everything is up."""

EMAIL = "demo@example.com"

ADDRESS = """
The orders service is up: {url}
Read it and try it:      {url}/docs
Its errors, explained:   {url}/problems
Ctrl-C stops it; the data stays.
"""

DEMO = """
Log in as {email} with the password {password}

TOKEN=$(curl -s {url}/auth/login -H 'Content-Type: application/json' -d '{login}' | {extract_token})
curl -s {url}/orders -H "Authorization: Bearer $TOKEN"
ORDER=$(curl -s {url}/orders -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
-H "Idempotency-Key: $(python3 -c 'import uuid; print(uuid.uuid4())')" -d '{order}' | {extract_id})
.venv/bin/orders-api pay "$ORDER"
curl -s "{url}/orders/$ORDER?include=items" -H "Authorization: Bearer $TOKEN"
"""

EXTRACT = """python3 -c 'import json, sys; print(json.load(sys.stdin)["{}"])'"""
ORDER = (
    '{"currency": "EUR", "items": [{"sku": "lamp-1", "name": "Desk lamp", "quantity": 2, "unit_price_cents": 3950}]}'
)


def text(url: str, password: str | None) -> str:
    """`password`: the demo user's, None where there is no such user."""
    if password is None:
        return ADDRESS.format(url=url)
    login = f'{{"email": "{EMAIL}", "password": "{password}"}}'
    return ADDRESS.format(url=url) + DEMO.format(
        url=url,
        email=EMAIL,
        password=password,
        login=login,
        order=ORDER,
        extract_token=EXTRACT.format("access_token"),
        extract_id=EXTRACT.format("id"),
    )
