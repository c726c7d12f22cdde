-- What issuing holds to sign, and what stands against signing once it is held (C9, E8, G21), with one question: each statement of
-- a volatile function sees all that was committed before it began, so the look sees what was committed while the locks were awaited.
create function obstacles_under_locks(
    kill_switch_lock bigint, key_lock bigint, an_issuer smallint, a_key bytea, a_serial bytea,
    out stopped boolean, out blocked boolean, out revoked boolean
) language plpgsql volatile as $$
begin
    perform pg_advisory_lock_shared(kill_switch_lock);
    perform pg_advisory_lock(key_lock);
    select coalesce((select bool_or(newest.stopped) from (select distinct on (k.issuer_id) k.stopped from quash.kill_switch k
               where k.issuer_id = an_issuer or k.issuer_id is null order by k.issuer_id, k.id desc) newest), false),
           exists (select from quash.blocked_key b where b.spki_sha256 = a_key),
           exists (select from quash.revocation r where r.issuer_id = an_issuer and r.serial = a_serial)
    into stopped, blocked, revoked;
end $$;

-- No question is asked of it, and each change of a certificate's state writes to it.
drop index certificate_reserved;
