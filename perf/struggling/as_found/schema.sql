CREATE TABLE customers (
    id bigserial PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE orders (
    id bigserial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    status text NOT NULL,
    total_cents bigint NOT NULL,
    created_at timestamp NOT NULL
);

CREATE TABLE order_items (
    id bigserial PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES orders,
    sku text NOT NULL,
    quantity int NOT NULL,
    price_cents bigint NOT NULL
);
