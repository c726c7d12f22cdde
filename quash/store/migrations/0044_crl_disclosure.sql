-- What CCADB was told last, by issuer: the newest row counts (B23, B24). Append-only.
create table crl_disclosure (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    at bigint not null,
    issuer_id smallint not null references issuer,
    urls text[] not null,
    act_id bigint not null references act
);
create index crl_disclosure_issuer on crl_disclosure (issuer_id, id);
create trigger append_only before update or delete or truncate on crl_disclosure execute function refuse_change();
