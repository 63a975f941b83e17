-- Outgoing webhooks. The outbox is order_events itself: its numbers have no gap and no inversion, so an endpoint needs to
-- remember only up to which number its deliveries were made.

CREATE TABLE webhook_endpoints (
    user_id uuid NOT NULL REFERENCES users (id),
    id uuid NOT NULL,
    url text NOT NULL CHECK (char_length(url) BETWEEN 1 AND 2000),
    description text NOT NULL CHECK (char_length(description) <= 200),
    event_types text[] NOT NULL CHECK (cardinality(event_types) >= 1),
    secret bytea NOT NULL CHECK (octet_length(secret) BETWEEN 24 AND 64),
    -- After a rotation it signs along until then.
    previous_secret bytea,
    previous_until timestamptz,
    dispatched_sequence bigint NOT NULL CHECK (dispatched_sequence >= 0),
    failing_since timestamptz,
    disabled_at timestamptz,
    disabled_reason text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, id),
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL)),
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);

CREATE TABLE webhook_deliveries (
    user_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    sequence bigint NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    -- All that were begun, and how far along the schedule it is: sent again by hand it starts anew.
    attempts integer NOT NULL DEFAULT 0,
    step integer NOT NULL DEFAULT 0,
    -- While an attempt is on: when somebody else may take it up, because its worker must have died.
    next_attempt_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, endpoint_id, sequence),
    FOREIGN KEY (user_id, endpoint_id) REFERENCES webhook_endpoints (user_id, id) ON DELETE CASCADE,
    FOREIGN KEY (user_id, sequence) REFERENCES order_events (user_id, sequence)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_done ON webhook_deliveries (created_at) WHERE state <> 'pending';
CREATE INDEX webhook_deliveries_by_event ON webhook_deliveries (user_id, sequence);

CREATE TABLE webhook_delivery_attempts (
    user_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    sequence bigint NOT NULL,
    number integer NOT NULL,
    began_at timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    status smallint,
    error text,
    PRIMARY KEY (user_id, endpoint_id, sequence, number),
    FOREIGN KEY (user_id, endpoint_id, sequence) REFERENCES webhook_deliveries ON DELETE CASCADE
);
