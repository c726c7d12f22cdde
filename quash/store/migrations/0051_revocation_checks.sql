-- A mass revocation writes millions of rows here: what was checked and made for each is checked for a statement, or made
-- in fewer steps.
--
-- The foreign keys locked a row of `certificate` and one of `act` for each revocation, which writes to both. Instead:
--   * a revocation takes its certificate's notAfter, which is not null, so there is none without a certificate; and
--     certificates are never deleted, which their own trigger now says;
--   * acts are append-only, so one look for all of a statement's is enough.
alter table revocation
    drop constraint revocation_issuer_id_serial_fkey,
    drop constraint revocation_act_id_fkey;
create trigger kept before delete or truncate on certificate execute function refuse_change();

create function revocation_has_act() returns trigger language plpgsql set search_path = quash, pg_temp as $$
begin
    if exists (select from (select distinct act_id from added) r where not exists (select from act where id = r.act_id)) then
        raise exception 'a revocation needs its act' using errcode = 'foreign_key_violation';
    end if;
    return null;
end $$;
create trigger has_act after insert on revocation referencing new table as added
    for each statement execute function revocation_has_act();

-- As before (0020_crl_entries.sql), octet for octet, in one expression.
create or replace function revocation_entry() returns trigger language plpgsql set search_path = quash, pg_temp as $$
begin
    new.not_after := (select c.not_after from certificate c where c.issuer_id = new.issuer_id and c.serial = new.serial);
    new.entry :=
        set_byte(set_byte('\x30000200'::bytea, 1,
            2 + octet_length(new.serial) + case when new.revoked_at < 2524608000 then 15 else 17 end
              + case new.reason when 0 then 0 else 14 end), 3, octet_length(new.serial))
        || new.serial
        -- UTCTime through 2049, GeneralizedTime from 2050 (B19); 2524608000 is the first second of 2050.
        || case when new.revoked_at < 2524608000
            then '\x170d'::bytea || to_char(to_timestamp(new.revoked_at) at time zone 'UTC', 'YYMMDDHH24MISS"Z"')::bytea
            else '\x180f'::bytea || to_char(to_timestamp(new.revoked_at) at time zone 'UTC', 'YYYYMMDDHH24MISS"Z"')::bytea
            end
        -- B10: unspecified is said by saying nothing.
        || case new.reason when 0 then ''::bytea else set_byte('\x300c300a0603551d1504030a0100'::bytea, 13, new.reason) end;
    return new;
end $$;
