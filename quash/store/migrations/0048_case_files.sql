-- Evidence files of cases, kept with their hash. Append-only.
create table case_file (
    case_id bigint not null references revocation_case,
    sha256 bytea not null check (sha256 = sha256(body)),
    name text not null,
    at bigint not null,
    body bytea not null,
    act_id bigint not null references act,
    primary key (case_id, sha256)
);
alter table case_file alter column body set storage external;  -- what comes is mostly compressed already
create trigger append_only before update or delete or truncate on case_file execute function refuse_change();
