-- What officers say was validated for whoever orders, by which method and when (F2, D21-D24). Append-only: the newest row of
-- an applicant's identifier holds; withdrawing it is another row.
create table validated_identifier (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    applicant text not null,              -- as in certificate_order.operator
    kind text not null check (kind in ('dns', 'email', 'organization')),
    value text not null,
    method text not null,                 -- of the BR or SBR; empty when withdrawn
    validated_at bigint not null,
    recorded_at bigint not null,
    withdrawn boolean not null,
    act_id bigint not null references act
);
create index validated_identifier_newest on validated_identifier (applicant, kind, value, id desc);
create trigger append_only before update or delete or truncate on validated_identifier
    execute function refuse_change();
