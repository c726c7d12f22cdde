-- A demand may allow what the builder refuses by itself: a thisUpdate before that of the published CRL, where a clock that
-- was ahead dated that one in the future.
alter table crl_demand add column replaces_future boolean not null default false;
