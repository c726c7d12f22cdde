-- Whoever writes many revocations brings their CRL entries and notAfter ready-made: made here row by row, by a trigger that
-- looks each certificate up, they cost more than all the rest of the insert. They are still the database's word: it
-- compares what was brought with the certificates and with its own encoding, once for each statement, and refuses the
-- statement otherwise. What is left out is filled as before, also for processes of the release before.

-- One element of revokedCertificates (B8, B10, B19), octet for octet as quash.pki.crl.entry.
create function crl_entry(serial bytea, revoked_at bigint, reason smallint) returns bytea language sql stable as $$
    select set_byte(set_byte('\x30000200'::bytea, 1,
            2 + octet_length(serial) + case when revoked_at < 2524608000 then 15 else 17 end
              + case reason when 0 then 0 else 14 end), 3, octet_length(serial))
        || serial
        -- UTCTime through 2049, GeneralizedTime from 2050 (B19); 2524608000 is the first second of 2050.
        || case when revoked_at < 2524608000
            then '\x170d'::bytea || to_char(to_timestamp(revoked_at) at time zone 'UTC', 'YYMMDDHH24MISS"Z"')::bytea
            else '\x180f'::bytea || to_char(to_timestamp(revoked_at) at time zone 'UTC', 'YYYYMMDDHH24MISS"Z"')::bytea
            end
        -- B10: unspecified is said by saying nothing.
        || case reason when 0 then ''::bytea else set_byte('\x300c300a0603551d1504030a0100'::bytea, 13, reason) end
$$;

-- Of the owner, as the next one: the writers need no right to call what these call.
create or replace function revocation_entry() returns trigger
language plpgsql security definer set search_path = quash, pg_temp as $$
begin
    new.not_after := coalesce(new.not_after,
        (select c.not_after from certificate c where c.issuer_id = new.issuer_id and c.serial = new.serial));
    new.entry := coalesce(new.entry, crl_entry(new.serial, new.revoked_at, new.reason));
    return new;
end $$;
drop trigger entry on revocation;
create trigger entry before insert on revocation for each row
    when (new.entry is null or new.not_after is null) execute function revocation_entry();

-- In place of foreign keys, which would lock a row of each table for each revocation: acts and certificates are never
-- deleted. `offset 0`: one look-up by the primary key for each row, whatever the planner believes of the tables' sizes.
create function revocation_is_sound() returns trigger
language plpgsql security definer set search_path = quash, pg_temp as $$
begin
    if exists (select from (select distinct act_id from added) r where not exists (select from act where id = r.act_id)) then
        raise exception 'a revocation needs its act' using errcode = 'foreign_key_violation';
    end if;
    if exists (
        select from added r left join lateral (
            select c.not_after from certificate c where c.issuer_id = r.issuer_id and c.serial = r.serial offset 0
        ) c on true
        where c.not_after is distinct from r.not_after or r.entry <> crl_entry(r.serial, r.revoked_at, r.reason)
    ) then
        raise exception 'a revocation says something else than its certificate or its CRL entry'
            using errcode = 'check_violation';
    end if;
    return null;
end $$;
create trigger sound after insert on revocation referencing new table as added
    for each statement execute function revocation_is_sound();
drop trigger has_act on revocation;
drop function revocation_has_act();
