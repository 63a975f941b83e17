-- From here on for what is written; the next step looks at what is there, and locks nobody out for it.
ALTER TABLE orders ADD CONSTRAINT orders_channel_known CHECK (channel IN ('web', 'app')) NOT VALID;
