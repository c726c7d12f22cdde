-- Blocked keys become news: every new one is looked for among all certificates. None is ever removed, only annotated.
alter table blocked_key add column id bigint generated always as identity;
create index blocked_key_tx on blocked_key (tx, id);
create table blocked_key_note (
    id bigint generated always as identity primary key,
    spki_sha256 bytea not null references blocked_key,
    at bigint not null,
    note text not null,
    act_id bigint not null references act
);
create index blocked_key_note_key on blocked_key_note (spki_sha256);
create trigger append_only before update or delete or truncate on blocked_key_note execute function refuse_change();
