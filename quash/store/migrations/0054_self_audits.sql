-- Self-audits (F12): samples of what was issued in a period, looked at by linters that did not gate them. Append-only.
create table self_audit (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    at bigint not null,
    since bigint not null,                -- issued from here on,
    until bigint not null,                -- up to here, exclusive
    population bigint not null,
    act_id bigint not null references act
);
create table self_audit_result (
    audit_id bigint not null references self_audit,
    issuer_id smallint not null,
    serial bytea not null,
    linter text not null,
    version text not null,
    findings jsonb not null,              -- [{severity, code, message}], every one of them
    refused boolean not null,             -- at least one of them would have stopped it
    primary key (audit_id, issuer_id, serial, linter),
    foreign key (issuer_id, serial) references certificate
);
create trigger append_only before update or delete or truncate on self_audit execute function refuse_change();
create trigger append_only before update or delete or truncate on self_audit_result execute function refuse_change();
