-- transactional: false
DROP INDEX CONCURRENTLY orders_by_channel;
