-- What the system did by itself (F1): a CRL was published, a pass over a bucket of OCSP answers was completed, an OCSP signer came or
-- went. The database writes it in the transaction of the effect, whichever process causes that. The ledger chains it like an act.
create table system_event (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    at bigint not null,
    kind text not null check (kind in ('crl.published', 'ocsp.pass', 'ocsp.signer')),
    subject jsonb not null
);
create index system_event_tx on system_event (tx, id);
create trigger append_only before update or delete or truncate on system_event execute function refuse_change();

create function record_crl() returns trigger language plpgsql security definer set search_path = quash, pg_temp as $$
begin
    insert into system_event (at, kind, subject) values (new.published_at, 'crl.published', jsonb_build_object(
        'issuer_id', new.issuer_id, 'scope', new.scope, 'number', new.number::text, 'entries', new.entries,
        'size', new.size, 'sha256', encode(new.sha256, 'hex'), 'this_update', new.this_update));
    return null;
end $$;
create trigger record after update of published_at on crl for each row
    when (old.published_at is null and new.published_at is not null) execute function record_crl();
create trigger record_offline after insert on crl for each row
    when (new.published_at is not null) execute function record_crl();

create function record_pass() returns trigger language plpgsql security definer set search_path = quash, pg_temp as $$
begin
    insert into system_event (at, kind, subject) values (new.passed_at, 'ocsp.pass', jsonb_build_object(
        'issuer_id', new.issuer_id, 'bucket', new.bucket));
    return null;
end $$;
create trigger record after update of passed_at on bucket for each row
    when (new.passed_at is not null and new.passed_at is distinct from old.passed_at) execute function record_pass();

create function record_signer() returns trigger language plpgsql security definer set search_path = quash, pg_temp as $$
begin
    insert into system_event (at, kind, subject) values (new.created_at, 'ocsp.signer', jsonb_build_object(
        'issuer_id', new.issuer_id, 'signer_id', new.id, 'state', new.state,
        'certificate_sha256', encode(sha256(new.certificate), 'hex'), 'not_after', new.not_after));
    return null;
end $$;
create trigger record after insert or update of state on ocsp_signer for each row execute function record_signer();

alter table ledger drop constraint ledger_source_check;
alter table ledger add constraint ledger_source_check check (source in ('act', 'signing_log', 'system_event'));
