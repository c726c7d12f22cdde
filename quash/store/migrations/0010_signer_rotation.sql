-- Rotation of delegated OCSP signers: the presigner makes a key and asks, the CA signer answers (C-5).
--
-- Neither may do the other's part. The CA signer writes no certificate row by itself: it goes through the functions below,
-- each bound to one open request, so that a bug in it cannot reserve a serial for anything else.

-- An operator's order to replace an issuer's signer at once and to sign everything anew: its key may be known to others.
create table signer_switch (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    issuer_id smallint not null references issuer,
    at bigint not null,
    act_id bigint not null references act
);
create trigger append_only before update or delete or truncate on signer_switch execute function refuse_change();

create table signer_request (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    issuer_id smallint not null references issuer,
    switch_id bigint references signer_switch,  -- null: a renewal at half the signer's life
    key_ref text not null,                -- where the presigner finds the key
    csr bytea not null,                   -- PKCS#10: proves that the asker holds the key
    state text not null default 'open' check (state in ('open', 'done', 'refused')),
    code text,                            -- of the refusal
    serial bytea,                         -- of the certificate, once it is reserved
    signer_id smallint references ocsp_signer,
    created_at bigint not null
);
create unique index signer_request_open on signer_request (issuer_id) where state = 'open';

-- T1: commits a serial to its TBS. Returns the serial that counts: of two CA signers, or after a crash, the first one's.
create function signer_reserve(
    p_request bigint, p_serial bytea, p_tbs bytea, p_spki_sha256 bytea, p_ski bytea,
    p_not_before bigint, p_not_after bigint, p_bucket integer
) returns bytea
language plpgsql security definer set search_path = quash, pg_temp as $$
declare
    r signer_request;
begin
    select * into r from signer_request where id = p_request and state = 'open' for update;
    if not found or r.serial is not null then
        return r.serial;
    end if;
    insert into certificate
        (issuer_id, serial, state, profile, tbs, spki_sha256, ski, not_before, not_after, bucket, created_at)
        values (r.issuer_id, p_serial, 'reserved', 'ocsp-signer', p_tbs, p_spki_sha256, p_ski, p_not_before, p_not_after,
            p_bucket, p_not_before);
    update signer_request set serial = p_serial where id = p_request;
    return p_serial;
end $$;

-- T3: the certificate, the signer, its news. A switch also makes every bucket of the issuer due: all is signed anew.
create function signer_finish(
    p_request bigint, p_der bytea, p_algorithm text, p_not_before bigint, p_not_after bigint, p_at bigint
) returns boolean
language plpgsql security definer set search_path = quash, pg_temp as $$
declare
    r signer_request;
    new_id smallint;
begin
    select * into r from signer_request where id = p_request and state = 'open' and serial is not null for update;
    if not found then
        return false;
    end if;
    update certificate set state = 'issued', der = p_der, tbs = null
        where issuer_id = r.issuer_id and serial = r.serial and state = 'reserved';
    insert into ocsp_signer
        (issuer_id, certificate, key_ref, signature_algorithm, not_before, not_after, state, created_at)
        values (r.issuer_id, p_der, r.key_ref, p_algorithm, p_not_before, p_not_after, 'active', p_at) returning id into new_id;
    update ocsp_signer set state = 'retiring' where issuer_id = r.issuer_id and id <> new_id and state = 'active';
    update signer_request set state = 'done', signer_id = new_id where id = p_request;
    insert into act (at, actor, action, subject) values (p_at, 'process:ca-signer', 'signer.renewed', jsonb_build_object(
        'issuer', (select name from issuer where id = r.issuer_id), 'signer', new_id,
        'serial', ltrim(encode(r.serial, 'hex'), '0'), 'switch', r.switch_id));
    insert into outbox (lane, kind, issuer_id, serial) values (0, 'certificate', r.issuer_id, r.serial);
    insert into outbox (lane, kind, issuer_id) values (0, 'signer', r.issuer_id);
    if r.switch_id is not null then
        insert into outbox (lane, kind, issuer_id, bucket)
            select 1, 'bucket', issuer_id, bucket from bucket where issuer_id = r.issuer_id;
    end if;
    perform pg_notify('outbox', '');
    return true;
end $$;

-- A request that is not granted. A serial that it reserved is revoked, superseded(4): every one is answered (A8).
create function signer_refuse(p_request bigint, p_code text, p_at bigint) returns boolean
language plpgsql security definer set search_path = quash, pg_temp as $$
declare
    r signer_request;
    new_act bigint;
begin
    select * into r from signer_request where id = p_request and state = 'open' for update;
    if not found then
        return false;
    end if;
    update signer_request set state = 'refused', code = p_code where id = p_request;
    if r.serial is not null then
        insert into act (at, actor, action, subject)
            values (p_at, 'process:ca-signer', 'reservation.given_up', jsonb_build_object(
                'issuer', (select name from issuer where id = r.issuer_id),
                'serial', ltrim(encode(r.serial, 'hex'), '0'), 'code', p_code))
            returning id into new_act;
        insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)
            values (r.issuer_id, r.serial, 1, 4, p_at, p_at, new_act) on conflict do nothing;
        insert into outbox (lane, kind, issuer_id, serial) values (0, 'certificate', r.issuer_id, r.serial);
        perform pg_notify('outbox', '');
    end if;
    return true;
end $$;

revoke execute on function signer_reserve(bigint, bytea, bytea, bytea, bytea, bigint, bigint, integer),
    signer_finish(bigint, bytea, text, bigint, bigint, bigint), signer_refuse(bigint, text, bigint) from public;
