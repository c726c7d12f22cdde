-- Each revocation keeps its CRL entry ready-made, so that PostgreSQL joins a million of them in one pass (B8, B10, B19),
-- and its certificate's notAfter, so that what B13 lets go is seen without a look at the certificate. Both come from the
-- database itself, whatever the writer says: a trigger fills them, and processes of the release before need not know.
create function revocation_entry() returns trigger language plpgsql set search_path = quash, pg_temp as $$
declare
    at timestamp := to_timestamp(new.revoked_at) at time zone 'UTC';
    -- UTCTime through 2049, GeneralizedTime from 2050 (B19); 2524608000 is the first second of 2050.
    tail bytea := case when new.revoked_at < 2524608000
        then '\x170d'::bytea || convert_to(to_char(at, 'YYMMDDHH24MISS') || 'Z', 'UTF8')
        else '\x180f'::bytea || convert_to(to_char(at, 'YYYYMMDDHH24MISS') || 'Z', 'UTF8') end;
    size integer := octet_length(new.serial);
begin
    if new.reason <> 0 then  -- B10: unspecified is said by saying nothing
        tail := tail || set_byte('\x300c300a0603551d1504030a0100'::bytea, 13, new.reason);
    end if;
    new.entry := set_byte(set_byte('\x30000200'::bytea, 1, 2 + size + octet_length(tail)), 3, size) || new.serial || tail;
    new.not_after := (select c.not_after from certificate c where c.issuer_id = new.issuer_id and c.serial = new.serial);
    return new;
end $$;

alter table revocation add column entry bytea, add column not_after bigint;
create trigger entry before insert or update on revocation for each row execute function revocation_entry();
-- The rows there are already: an update that changes nothing but what the trigger fills. Append-only again afterwards.
alter table revocation disable trigger append_only;
update revocation set entry = null;
alter table revocation enable trigger append_only;
alter table revocation alter column entry set not null, alter column not_after set not null;

-- One scope's revocations in the order of their transactions, which is the order of its CRL: what comes later is appended.
-- It also serves what revocation_scope did: those that a CRL does not cover yet, and how many there are (version 1).
create index revocation_order on revocation (issuer_id, coalesce(shard, -1), tx, id) include (version);
drop index revocation_scope;
-- Upgrades (B25) are few: this tells which versions do not count any more.
create index revocation_upgrade on revocation (issuer_id, serial, version) where version > 1;
