-- A bucket is read from its index alone: serials of one lie side by side there, and far from each other in the table, where
-- each is a page of its own with a whole certificate on it.
create index certificate_in_bucket on certificate (issuer_id, bucket, serial) include (state, not_after);
drop index certificate_bucket;
