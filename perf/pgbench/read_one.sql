\set n random(1, :orders)
\set u 1 + :n % :users
SELECT t1.id, t1.status, t1.currency, t1.total_cents, t1.metadata, t1.version, t1.created_at, t1.updated_at
FROM orders AS t1 WHERE t1.user_id = bench.user_id(:u) AND t1.id = bench.order_id(:n);
