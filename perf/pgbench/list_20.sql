\set u random(1, :users)
SELECT t1.id, t1.status, t1.currency, t1.total_cents, t1.metadata, t1.version, t1.created_at, t1.updated_at
FROM orders AS t1 WHERE t1.user_id = bench.user_id(:u) AND t1.created_at < '2099-01-01'
ORDER BY t1.created_at DESC, t1.id DESC LIMIT 21;
