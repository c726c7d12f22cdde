-- Orders with high-profile names wait for an officer (G19, D38): `held` until one releases or refuses them. An order's age
-- counts from its release.
alter table certificate_order drop constraint certificate_order_state_check;
alter table certificate_order add constraint certificate_order_state_check
    check (state in ('held', 'pending', 'ready', 'issued', 'refused'));
alter table certificate_order add column released_at bigint;
create index certificate_order_held on certificate_order (created_at, id) where state = 'held';
