-- transactional: false
-- It waits for the transactions of others, but nobody waits for it.
SET lock_timeout = '1min';
CREATE INDEX CONCURRENTLY orders_by_channel ON orders (channel, created_at);
