-- What POST /orders executes for a new key and two items: PLACE of orders_api/orders/statements.py around the _CLAIM of
-- orders_api/web/idempotency.py.
\set u random(1, :users)
\set r random(1, 281474976710655)
WITH claim AS (
    INSERT INTO idempotency_keys
        (user_id, route, key, fingerprint, order_id, status, location, etag, body, trace_id, created_at)
    SELECT bench.user_id(:u), 'POST /orders', 'bench-' || :r::text, decode(repeat('5e', 32), 'hex'), bench.new_id(:r),
        201, '/orders/00000000-0000-7000-8000-000000000000', '"1.1.items"', repeat('x', 400)::bytea, repeat('be', 16),
        now()
    WHERE pg_try_advisory_xact_lock(:r)
    ON CONFLICT DO NOTHING RETURNING 1
),
counter AS (
    UPDATE feeds SET last_sequence = last_sequence + 1 FROM claim WHERE user_id = bench.user_id(:u)
    RETURNING last_sequence
),
placed AS (
    INSERT INTO orders (user_id, id, status, currency, total_cents, metadata, version, created_at, updated_at)
    SELECT bench.user_id(:u), bench.new_id(:r), 'pending'::order_status, 'EUR', 2040, '{"basket": "17"}', 1, now(), now()
    FROM counter
),
listed AS (
    INSERT INTO order_items (user_id, order_id, position, sku, name, quantity, unit_price_cents)
    SELECT bench.user_id(:u), bench.new_id(:r), item.number - 1, item.sku, item.name, item.quantity,
        item.unit_price_cents
    FROM counter, ROWS FROM (
        jsonb_to_recordset('[{"sku": "lamp-1", "name": "Lamp", "quantity": 2, "unit_price_cents": 625},
            {"sku": "cable-3", "name": "Cable", "quantity": 1, "unit_price_cents": 790}]'::jsonb)
            AS (sku text, name text, quantity int, unit_price_cents bigint)
    ) WITH ORDINALITY AS item (sku, name, quantity, unit_price_cents, number)
),
recorded AS (
    INSERT INTO order_events (user_id, sequence, order_id, type, data, trace_id, created_at)
    SELECT bench.user_id(:u), last_sequence, bench.new_id(:r), 'order.created',
        '{"version": 1, "status": "pending", "currency": "EUR", "total_cents": 2040, "changed": []}'::jsonb,
        repeat('be', 16), now()
    FROM counter RETURNING 1
)
SELECT (SELECT count(*) FROM claim), (SELECT count(*) FROM recorded);
