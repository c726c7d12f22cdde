-- Cases: one reason to revoke, with its deadline (C1-C3, C5-C7). Everything is append-only: a case's state is derived.
create table revocation_case (
    id bigint generated always as identity primary key,
    trigger text not null,               -- a name of issuer.revocation.triggers
    received_at bigint not null,         -- the clock starts here (C5)
    opened_at bigint not null,
    reporter text not null,
    summary text not null,
    act_id bigint not null references act
);
create table case_certificate (
    case_id bigint not null references revocation_case,
    issuer_id smallint not null,
    serial bytea not null,
    act_id bigint not null references act,
    primary key (case_id, issuer_id, serial),
    foreign key (issuer_id, serial) references certificate
);
-- A certificate of a case was seen revoked by OCSP, to both hashes, and in the published CRL: only then the duty is met. Of
-- one that expired nothing is due any more.
create table case_sighting (
    case_id bigint not null,
    issuer_id smallint not null,
    serial bytea not null,
    seen_at bigint not null,
    primary key (case_id, issuer_id, serial),
    foreign key (case_id, issuer_id, serial) references case_certificate
);
create table case_event (
    id bigint generated always as identity primary key,
    case_id bigint not null references revocation_case,
    at bigint not null,
    kind text not null check (kind in ('note', 'evidence', 'preliminary-report')),
    text text not null,
    sha256 bytea check (octet_length(sha256) = 32),   -- of an evidence file
    act_id bigint not null references act
);
create index case_event_case on case_event (case_id);
do $$
declare t text;
begin
    foreach t in array array['revocation_case', 'case_certificate', 'case_sighting', 'case_event'] loop
        execute format('create trigger append_only before update or delete or truncate on %I execute function refuse_change()', t);
    end loop;
end $$;
