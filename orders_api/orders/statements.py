"""The statements that write orders: each does all that belongs together, in one round trip and one transaction."""

_LISTED = """
        INSERT INTO order_items (user_id, order_id, position, sku, name, quantity, unit_price_cents)
        SELECT %(user_id)s, %(id)s, item.number - 1, item.sku, item.name, item.quantity, item.unit_price_cents
        FROM {after}, ROWS FROM (
            jsonb_to_recordset(%(items)s) AS (sku text, name text, quantity int, unit_price_cents bigint)
        ) WITH ORDINALITY AS item (sku, name, quantity, unit_price_cents, number)"""

# What no longer has the version and status that were read stays as it is, and so does all without a counter row. The
# numbers of the events are taken from that, whose lock is held from there to COMMIT: no gap, no inversion.
_STORE = """
    WITH changed AS (
        UPDATE orders SET status = %(status)s::order_status, currency = %(currency)s, total_cents = %(total_cents)s,
            metadata = %(metadata)s, version = %(version)s, updated_at = %(updated_at)s
        WHERE user_id = %(user_id)s AND id = %(id)s AND version = %(version)s - 1 AND status = %(before)s::order_status
            AND EXISTS (SELECT FROM feeds WHERE feeds.user_id = %(user_id)s)
        RETURNING 1
    ),
    counter AS (
        UPDATE feeds SET last_sequence = last_sequence + %(count)s FROM changed WHERE user_id = %(user_id)s
        RETURNING last_sequence - %(count)s AS before
    ){replaced}
    INSERT INTO order_events (user_id, sequence, order_id, type, data, trace_id, created_at)
    SELECT %(user_id)s, before + number, %(id)s, type, data, %(trace_id)s, %(updated_at)s
    FROM counter, unnest(%(types)s::text[], %(data)s::jsonb[]) WITH ORDINALITY AS event (type, data, number)
"""
# What a statement deletes it can't insert again: the old items' places are overwritten.
_REPLACED = """,
    removed AS (
        DELETE FROM order_items USING changed
        WHERE user_id = %(user_id)s AND order_id = %(id)s AND position >= jsonb_array_length(%(items)s)
    ),
    listed AS ({listed}
        ON CONFLICT (user_id, order_id, position) DO UPDATE SET sku = excluded.sku, name = excluded.name,
            quantity = excluded.quantity, unit_price_cents = excluded.unit_price_cents
    )"""
STORE = _STORE.format(replaced="")
STORE_WITH_ITEMS = _STORE.format(replaced=_REPLACED.format(listed=_LISTED.format(after="changed")))

# `claim` is a statement that decides whether anything happens at all. The counter's lock is held to the end; without
# the counter no order is placed, and the claim's foreign key refuses it.
_PLACE = """
    WITH claim AS ({claim}),
    counter AS (
        UPDATE feeds SET last_sequence = last_sequence + 1 FROM claim WHERE user_id = %(user_id)s
        RETURNING last_sequence
    ),
    placed AS (
        INSERT INTO orders (user_id, id, status, currency, total_cents, metadata, version, created_at, updated_at)
        SELECT %(user_id)s, %(id)s, %(status)s::order_status, %(currency)s, %(total_cents)s, %(metadata)s, %(version)s,
            %(created_at)s, %(updated_at)s
        FROM counter
    ),
    listed AS ({listed}
    ),
    recorded AS (
        INSERT INTO order_events (user_id, sequence, order_id, type, data, trace_id, created_at)
        SELECT %(user_id)s, last_sequence, %(id)s, 'order.created', %(event)s, %(event_trace_id)s, %(created_at)s
        FROM counter RETURNING 1
    )
    SELECT (SELECT count(*) FROM claim), (SELECT count(*) FROM recorded)
"""
PLACE = _PLACE.format(claim="{claim}", listed=_LISTED.format(after="counter"))
