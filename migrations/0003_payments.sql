-- What payment providers tell us, the audit of every attempt, and the role that the application steps down to.

CREATE TABLE payment_events (
    webhook_id text PRIMARY KEY CHECK (char_length(webhook_id) BETWEEN 1 AND 255),
    type text NOT NULL,
    order_id text,
    body bytea NOT NULL,
    outcome text NOT NULL CHECK (
        outcome IN ('applied', 'order_unknown', 'type_unknown', 'amount_differs', 'currency_differs', 'step_illegal')
    ),
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    received_at timestamptz NOT NULL
);
CREATE INDEX payment_events_by_order ON payment_events (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX payment_events_to_look_at ON payment_events (received_at) WHERE outcome <> 'applied';

CREATE TABLE webhook_attempts (
    id uuid PRIMARY KEY,
    received_at timestamptz NOT NULL,
    client_ip text NOT NULL,
    outcome text NOT NULL,
    webhook_id text,
    body_sha256 bytea NOT NULL CHECK (octet_length(body_sha256) = 32),
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    attempts integer NOT NULL DEFAULT 1 CHECK (attempts >= 1)
);
CREATE INDEX webhook_attempts_by_age ON webhook_attempts (received_at);

-- The only way to delete from the audit, and only what is old. It runs as the owner.
CREATE FUNCTION prune_webhook_attempts(batch integer) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
BEGIN ATOMIC
    WITH old AS (
        SELECT id FROM webhook_attempts WHERE received_at < now() - interval '90 days' ORDER BY received_at LIMIT batch
    ),
    gone AS (DELETE FROM webhook_attempts WHERE id IN (SELECT id FROM old) RETURNING 1)
    SELECT count(*) FROM gone;
END;
REVOKE ALL ON FUNCTION prune_webhook_attempts(integer) FROM PUBLIC;

-- Roles belong to the whole cluster: another database, or the administrator, may have made it. Who may not make one
-- goes on without: the application then keeps the privileges of whom it connects as.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'orders_app') THEN
        CREATE ROLE orders_app NOLOGIN;
        EXECUTE format('GRANT orders_app TO %I', current_user);
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
    RAISE NOTICE 'the role orders_app was not made: %', sqlerrm;
END
$$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'orders_app') THEN
        GRANT USAGE ON SCHEMA public TO orders_app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO orders_app;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO orders_app;
        REVOKE INSERT, UPDATE, DELETE ON _yoyo_migration, _yoyo_log, _yoyo_version, yoyo_lock FROM orders_app;
        -- What was, was.
        REVOKE UPDATE, DELETE ON order_events, payment_events, webhook_attempts FROM orders_app;
        GRANT EXECUTE ON FUNCTION prune_webhook_attempts(integer) TO orders_app;
    END IF;
END
$$;
