-- What each host's configuration was when the issuing API took it up (G22, F1): only differences make a row, and an act.
create table configuration_seen (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    host text not null,
    parts jsonb not null,                 -- part -> SHA-256 of what it says, never what it says
    act_id bigint not null references act
);
create index configuration_seen_newest on configuration_seen (host, id);
create trigger append_only before update or delete or truncate on configuration_seen execute function refuse_change();
