-- What never changes of a certificate is kept with the set, and with it the number of its key's lock: its batches are then
-- read in the set's own order, where each look at a certificate is one at a page of its own. No lock is kept of a
-- certificate whose key nobody knew, nor anything where a release before made the set: those are looked up as before.
alter table mass_job_certificate
    add column shard integer,
    add column not_after bigint,
    add column lock_key bigint;
