-- The role stays: other databases of the cluster may use it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'orders_app') THEN
        ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM orders_app;
        REVOKE ALL ON ALL TABLES IN SCHEMA public FROM orders_app;
        REVOKE USAGE ON SCHEMA public FROM orders_app;
    END IF;
END
$$;
DROP FUNCTION prune_webhook_attempts(integer);
DROP TABLE webhook_attempts;
DROP TABLE payment_events;
