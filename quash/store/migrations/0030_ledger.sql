-- The ledger (F1, F3, F7, G24): every act and every signature of a CA, chained by hash in the order in which one sequencer
-- met them. Writers insert their rows beside it and never wait for it. Append-only; a row holds no copy of what it
-- chains: quash.store.ledger reads that from its source, so that a change there no longer fits the hash here.
create table ledger (
    position bigint primary key check (position > 0),   -- without gaps
    source text not null check (source in ('act', 'signing_log')),
    source_id bigint not null,
    chained_at bigint not null,
    hash bytea not null check (octet_length(hash) = 32),
    unique (source, source_id)
);

-- Signed statements "at this position the hash was this": a copy of the lines that are also kept outside the database.
create table ledger_checkpoint (
    number bigint primary key check (number > 0),
    position bigint not null,
    at bigint not null,
    line text not null
);

create trigger append_only before update or delete or truncate on ledger execute function refuse_change();
create trigger append_only before update or delete or truncate on ledger_checkpoint execute function refuse_change();
create index signing_log_tx on signing_log (tx, id);
