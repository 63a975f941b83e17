-- Orders, their items and their history; the answers that idempotency keys replay.
-- User-owned tables: keys begin with user_id, so that user_id can become a distribution column.

CREATE TYPE order_status AS ENUM ('pending', 'paid', 'cancelled');

CREATE TABLE orders (
    user_id uuid NOT NULL REFERENCES users (id),
    id uuid NOT NULL,
    status order_status NOT NULL DEFAULT 'pending',
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    total_cents bigint NOT NULL CHECK (total_cents BETWEEN 1 AND 1000000000000),
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    version integer NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL CHECK (updated_at >= created_at),
    PRIMARY KEY (user_id, id)
);
CREATE INDEX orders_by_user ON orders (user_id, created_at DESC, id DESC);
CREATE INDEX orders_by_status ON orders (status, created_at);
-- A payment event names the order alone: its owner is looked up here, then the row is locked by its key.
CREATE INDEX orders_by_id ON orders (id);

CREATE TABLE order_items (
    user_id uuid NOT NULL,
    order_id uuid NOT NULL,
    position smallint NOT NULL CHECK (position BETWEEN 0 AND 99),
    sku text NOT NULL CHECK (char_length(sku) BETWEEN 1 AND 64),
    name text NOT NULL CHECK (char_length(name) <= 200),
    quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 10000),
    unit_price_cents bigint NOT NULL CHECK (unit_price_cents BETWEEN 0 AND 10000000000),
    PRIMARY KEY (user_id, order_id, position),
    FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id)
);

CREATE TABLE order_events (
    user_id uuid NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 1),
    order_id uuid NOT NULL,
    type text NOT NULL CHECK (
        type IN ('order.created', 'order.updated', 'order.paid', 'order.cancelled', 'order.refunded')
    ),
    data jsonb NOT NULL,
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, sequence),
    FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id)
);
CREATE INDEX order_events_by_order ON order_events (user_id, order_id, sequence);

-- A row without a body is a tombstone: the key was used, its answer is gone.
CREATE TABLE idempotency_keys (
    user_id uuid NOT NULL,
    route text NOT NULL,
    key text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    order_id uuid NOT NULL,
    status smallint NOT NULL,
    location text NOT NULL,
    etag text NOT NULL,
    body bytea,
    trace_id text NOT NULL CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, route, key),
    -- Checked at COMMIT: the claim is the transaction's first statement, the order comes after it.
    FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX idempotency_keys_by_order ON idempotency_keys (user_id, order_id);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
-- Else each batch of `orders-api expire` would read past 30 days of tombstones to find answers.
CREATE INDEX idempotency_keys_with_answer ON idempotency_keys (created_at) WHERE body IS NOT NULL;
