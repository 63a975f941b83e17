-- SET seed.orders first: so many orders, twice as many items, a fiftieth as many customers.
-- Statuses are skewed as in life: 90 % paid, 7 % pending, 2.9 % cancelled, 0.1 % refunded, evenly over time.
INSERT INTO customers (name)
SELECT 'Customer ' || n FROM generate_series(1, current_setting('seed.orders')::int / 50) n;

INSERT INTO orders (customer_id, status, total_cents, created_at)
SELECT 1 + n % (current_setting('seed.orders')::int / 50),
    CASE WHEN luck = 0 THEN 'refunded' WHEN luck < 30 THEN 'cancelled' WHEN luck < 100 THEN 'pending' ELSE 'paid' END,
    500 + n % 9000,
    timestamp '2026-11-01' - (current_setting('seed.orders')::int - n) * interval '5 minutes'
FROM generate_series(1, current_setting('seed.orders')::int) n, LATERAL (SELECT n * 7919::bigint % 1000 AS luck) drawn;

INSERT INTO order_items (order_id, sku, quantity, price_cents)
SELECT n, 'sku-' || (n * 7 + position) % 500, 1 + (n + position) % 4, 100 + n % 900
FROM generate_series(1, current_setting('seed.orders')::int) n, generate_series(1, 2) position;
