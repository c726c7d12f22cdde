-- Linters look at certificates of CAs and OCSP signers as well, which nobody ordered (D47). `serial`: of such a
-- certificate, whether it was signed or not; the issuer of a root does not exist before it.
alter table lint_result alter column order_id drop not null;
alter table lint_result add column serial bytea;
alter table lint_result add constraint lint_result_about check (num_nonnulls(order_id, serial) = 1)
    not valid; -- each older row has an order: looking at all of them would keep issuing waiting
create index lint_result_serial on lint_result (serial) where serial is not null;
