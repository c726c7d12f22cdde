-- An operator's wish for a new CRL now. A scope is due while a demand is not visible in what its published CRL covers:
-- derived, as for revocations, so nothing is marked done and nothing is lost with a hint. Append-only.
create table crl_demand (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    at bigint not null,
    issuer_id smallint not null,
    scope text not null,
    act_id bigint not null references act,
    foreign key (issuer_id, scope) references crl_scope
);
create index crl_demand_scope on crl_demand (issuer_id, scope, tx);
create trigger append_only before update or delete or truncate on crl_demand execute function refuse_change();
