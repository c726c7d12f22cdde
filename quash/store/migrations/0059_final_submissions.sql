-- Final certificates that logs are to hold as well (E6: within 24 hours), written in the transaction that commits the
-- certificate (T3). Rows stay: they say which log has it since when.
create table final_submission (
    issuer_id smallint not null,
    serial bytea not null,
    added_at bigint not null,
    attempts integer not null default 0,
    next_at bigint not null,              -- no attempt before; whoever tries moves it on first
    logged_at bigint,                     -- when a log's SCT came and verified; null: not yet
    log_id bytea,                         -- SHA-256 of that log's key
    primary key (issuer_id, serial),
    foreign key (issuer_id, serial) references certificate,
    check ((logged_at is null) = (log_id is null))
);
create index final_submission_due on final_submission (next_at) where logged_at is null;
create index final_submission_oldest on final_submission (added_at) where logged_at is null;
create trigger kept before delete or truncate on final_submission execute function refuse_change();
