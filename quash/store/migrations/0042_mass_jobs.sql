-- Mass revocations (C17): a set of certificates that is fixed before anything begins, and revoked by batches.
create table mass_job (
    id bigint generated always as identity primary key,
    state text not null check (state in ('draft', 'gathering', 'ready', 'running', 'paused', 'done', 'aborted')),
    selection jsonb not null,             -- what was asked for: a list, a key, or an issuer and a period
    reason smallint not null check (reason in (0, 1, 3, 4, 5, 9)),  -- B11
    revoked_at bigint,                    -- B26; null: the moment of its start
    act_id bigint not null references act,
    created_at bigint not null,
    -- What gathering found.
    listed bigint,                        -- named by the selection; `total` counts siblings too (C8)
    total bigint,
    sha256 bytea check (octet_length(sha256) = 32),  -- of the set: what the second officer approves
    preview jsonb,
    -- How far it is. Certificates up to (after_issuer, after_rank, after_serial) are dealt with.
    start_act_id bigint references act,
    after_issuer smallint not null default -1,
    after_rank bigint not null default -1,
    after_serial bytea not null default '',
    done bigint not null default 0,
    changed bigint not null default 0,    -- of those: whose status did change (B25)
    per_second real,
    updated_at bigint not null
);

-- The set. In the order of `rank`, bucket by bucket and, where an issuer's shards divide its buckets, shard by shard: so that
-- a bucket is signed, and a CRL built, once for many of them.
create table mass_job_certificate (
    job_id bigint not null,
    issuer_id smallint not null,
    rank bigint not null,                 -- (bucket % shards) * 65536 + bucket
    serial bytea not null,
    primary key (job_id, issuer_id, rank, serial)
);
-- Its buckets; of a `whole` one nearly everything is revoked, and it is signed anew as a whole.
create table mass_job_bucket (
    job_id bigint not null references mass_job,
    issuer_id smallint not null,
    rank bigint not null,
    certificates bigint not null,
    whole boolean not null,
    primary key (job_id, issuer_id, rank)
);

-- A set is made while its job is a draft or gathers, and is fixed from then on. (Of one that was aborted nothing is revoked.)
create function refuse_late_certificate() returns trigger language plpgsql set search_path = quash, pg_temp as $$
begin
    if exists (select from mass_job j where j.id in (select distinct job_id from added)
               and j.state not in ('draft', 'gathering', 'aborted')) then
        raise exception 'the set of a mass revocation is fixed' using errcode = 'insufficient_privilege';
    end if;
    return null;
end $$;
create trigger fixed after insert on mass_job_certificate referencing new table as added
    for each statement execute function refuse_late_certificate();
create trigger append_only before update or delete or truncate on mass_job_certificate execute function refuse_change();
create trigger append_only before update or delete or truncate on mass_job_bucket execute function refuse_change();

-- What a process measured of itself, for forecasts: certificates a second.
create table measured_rate (
    name text primary key,
    per_second real not null,
    measured_at bigint not null
);
