-- Problem reports from the public (C6, C14): the process `intake` may insert here and nothing else in this database.
create table report (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    reference uuid not null unique,       -- what the reporter was given
    received_at bigint not null,          -- the clock of its case starts here (C5)
    kind text not null check (kind in ('problem', 'key-compromise')),
    source text not null,                 -- the address it came from
    contact text not null,
    body jsonb not null,                  -- as the API took it; never a private key
    proof_kind text check (proof_kind in ('private-key', 'csr', 'jws')),
    spki bytea,
    proof bytea,
    proof_sha256 bytea,
    challenge text
);
create index report_tx on report (tx, id);
-- Challenges that intake gave out; the admin side looks whether a proof's is one of them, in time and not used before.
create table report_challenge (
    challenge text primary key,
    at bigint not null,
    expires_at bigint not null
);
-- The case that a report opened. What it became is a case's matter.
create table report_case (
    report_id bigint primary key references report,
    case_id bigint not null references revocation_case,
    at bigint not null
);
-- Everything that a report asks for was done; before, a crash has it done again.
create table report_done (
    report_id bigint primary key references report,
    at bigint not null
);
-- A case may be picked up by a person (G39), judged to be of another trigger, or closed without a revocation.
alter table case_event drop constraint case_event_kind_check;
alter table case_event add constraint case_event_kind_check check
    (kind in ('note', 'evidence', 'preliminary-report', 'picked-up', 'judged', 'closed', 'reopened'));

-- What is to be told to whom (C17, C18). A notice and how each attempt went are append-only.
create table notice (
    id bigint generated always as identity primary key,
    at bigint not null,
    case_id bigint references revocation_case,
    template text not null,
    channel text not null check (channel in ('mail', 'webhook')),
    recipient text not null,              -- an address, or a subscriber's account
    subject text not null,
    body text not null,
    once text unique                      -- a second notice of this name is not made
);
create table notice_attempt (
    id bigint generated always as identity primary key,
    notice_id bigint not null references notice,
    at bigint not null,
    sent boolean not null,
    detail text not null
);
create index notice_attempt_notice on notice_attempt (notice_id);
do $$
declare t text;
begin
    foreach t in array array['report', 'report_challenge', 'report_case', 'report_done', 'notice', 'notice_attempt'] loop
        execute format('create trigger append_only before update or delete or truncate on %I execute function refuse_change()', t);
    end loop;
end $$;
