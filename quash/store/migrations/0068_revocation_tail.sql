-- An entry ends alike for all that were revoked at one moment for one reason (B10, B19): written as text once for each of
-- these, not for each revocation, of which a mass revocation brings a thousand a statement.
create function crl_entry_tail(revoked_at bigint, reason smallint) returns bytea language sql stable as $$
    select substr(crl_entry('\x01'::bytea, revoked_at, reason), 6)
$$;
revoke execute on function crl_entry_tail(bigint, smallint) from public;

create or replace function revocation_is_sound() returns trigger
language plpgsql security definer set search_path = quash, pg_temp as $$
begin
    if exists (select from (select distinct act_id from added) r where not exists (select from act where id = r.act_id)) then
        raise exception 'a revocation needs its act' using errcode = 'foreign_key_violation';
    end if;
    if exists (
        with tails as materialized (
            select d.revoked_at, d.reason, crl_entry_tail(d.revoked_at, d.reason) as tail
            from (select distinct revoked_at, reason from added) d
        )
        select from added r
        left join tails t on t.revoked_at = r.revoked_at and t.reason = r.reason
        left join lateral (
            select c.not_after from certificate c where c.issuer_id = r.issuer_id and c.serial = r.serial offset 0
        ) c on true
        where c.not_after is distinct from r.not_after
            -- As crl_entry: the sizes of the whole and of the serial, the serial, the tail.
            or r.entry is distinct from set_byte(set_byte('\x30000200'::bytea, 1, 2 + octet_length(r.serial)
                + octet_length(t.tail)), 3, octet_length(r.serial)) || r.serial || t.tail
    ) then
        raise exception 'a revocation says something else than its certificate or its CRL entry'
            using errcode = 'check_violation';
    end if;
    return null;
end $$;
