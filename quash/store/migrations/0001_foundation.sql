-- The record of status. Conventions:
--   * times are Unix seconds (bigint) given by the caller's Clock; SQL's now() decides nothing;
--   * a serial is the content octets of its DER INTEGER, byte for byte as in the certificate (B8);
--   * `tx` is the writing transaction, for "new since" readers: sequences number rows before commits, so a reader asks
--     for tx >= position and remembers only its snapshot's xmin (quash.store.news);
--   * tables named append-only refuse UPDATE, DELETE and TRUNCATE to every role, their owner included.

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'insufficient_privilege';
end $$;

-- Acts: who did what. Append-only; part E chains them by hash.
create table act (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    at bigint not null,
    actor text not null,
    action text not null,
    subject jsonb not null
);
create index act_tx on act (tx, id);

create table issuer (
    id smallint generated always as identity primary key,
    name text not null unique check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    kind text not null check (kind in ('root', 'sub-ca', 'imported')),
    parent smallint references issuer,
    subject bytea not null,               -- DER Name; every issued certificate and CRL carries these bytes (B1, D13)
    spki bytea not null,                  -- DER SubjectPublicKeyInfo
    signature_algorithm text not null,    -- a name of quash.pki.algorithms
    key_ref text,                         -- where the CA signer finds the key; null: the key lives apart (root)
    ocsp_path text not null unique,       -- the issuer's own path on the responder (G45), without slashes around
    max_age integer not null,             -- seconds a cache may keep a good or revoked answer (A36)
    bucket_count integer not null check (bucket_count between 1 and 65536),
    shard_count integer not null default 0 check (shard_count between 0 and 65536),
    profiles text[] not null default '{}',
    created_at bigint not null,
    tx xid8 not null default pg_current_xact_id()
);

-- An issuer is a name with a key; it may have several certificates.
create table issuer_certificate (
    issuer_id smallint not null references issuer,
    sha256 bytea not null,
    der bytea not null,
    not_before bigint not null,
    not_after bigint not null,
    primary key (issuer_id, sha256)
);

-- One order of a client: the durable side of flow 1.
create table certificate_order (
    id uuid primary key,
    created_at bigint not null,
    operator text not null,
    profile text not null,
    csr bytea not null,
    state text not null check (state in ('pending', 'ready', 'issued', 'refused')),
    code text,                            -- of the refusal
    detail text,
    issuer_id smallint references issuer,
    serial bytea,
    updated_at bigint not null
);

create table certificate (
    issuer_id smallint not null references issuer,
    serial bytea not null check (octet_length(serial) between 1 and 64),
    state text not null check (state in ('reserved', 'precertificate', 'issued', 'imported')),
    profile text not null,
    tbs bytea,                            -- what the CA signer may sign; null once signed, and for imports
    der bytea,                            -- the certificate; null while reserved and for imports without a file
    spki_sha256 bytea check (octet_length(spki_sha256) = 32),  -- null: an import whose key nobody knows
    ski bytea,
    not_before bigint,
    not_after bigint not null,
    shard integer,                        -- fixed at issuance by the CRLDP (B16); null: the full CRL
    bucket integer not null,
    order_id uuid references certificate_order,
    created_at bigint not null,
    tx xid8 not null default pg_current_xact_id(),
    primary key (issuer_id, serial)
);
create index certificate_spki on certificate (spki_sha256) where spki_sha256 is not null;
create index certificate_bucket on certificate (issuer_id, bucket);
create index certificate_serial on certificate (serial);
create index certificate_reserved on certificate (created_at) where state in ('reserved', 'precertificate');

-- Revocations and their upgrades (B25): append-only, the greatest version counts. A certificate without a row is good (version 0).
create table revocation (
    id bigint generated always as identity,
    tx xid8 not null default pg_current_xact_id(),
    issuer_id smallint not null,
    serial bytea not null,
    version smallint not null check (version between 1 and 32767),
    reason smallint not null check (reason in (0, 1, 3, 4, 5, 9)),  -- B11
    revoked_at bigint not null,           -- revocationDate and revocationTime (A26)
    recorded_at bigint not null,
    shard integer,                        -- copied from the certificate: the scope that must show it
    act_id bigint not null references act,
    primary key (issuer_id, serial, version),
    foreign key (issuer_id, serial) references certificate
);
create index revocation_tx on revocation (tx, id);
-- One scope's revocations, those that its CRL does not cover yet (tx), and how many there are (version 1), from the index alone.
create index revocation_scope on revocation (issuer_id, coalesce(shard, -1), tx) include (version);

create table blocked_key (
    spki_sha256 bytea primary key check (octet_length(spki_sha256) = 32),
    reason text not null,
    added_at bigint not null,
    act_id bigint not null references act,
    tx xid8 not null default pg_current_xact_id()
);

-- The newest row of an issuer (or of null: all issuers) counts. Append-only.
create table kill_switch (
    id bigint generated always as identity primary key,
    issuer_id smallint references issuer,
    stopped boolean not null,
    at bigint not null,
    act_id bigint not null references act
);

-- News for the presigner, written in the transaction that makes them.
create table outbox (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    lane smallint not null default 0 check (lane in (0, 1)),      -- 0 urgent: revocations and new certificates; 1 bulk
    kind text not null check (kind in ('certificate', 'bucket', 'issuer', 'signer')),
    issuer_id smallint not null,
    serial bytea,                         -- of kind certificate
    bucket integer                        -- of kind bucket: every certificate in it
);
create index outbox_tx on outbox (tx, id);

-- The unit of refresh (flow 4).
create table bucket (
    issuer_id smallint not null references issuer,
    bucket integer not null,
    due_at bigint not null,
    passed_at bigint,                     -- when the last complete pass began
    pass_xmin xid8,                       -- xmin of that pass's snapshot: an older feed partition may go
    primary key (issuer_id, bucket)
);
create index bucket_due on bucket (due_at);

-- Delegated OCSP signers (A13-A17). Their ids stand in records.
create table ocsp_signer (
    id smallint generated always as identity primary key,
    issuer_id smallint not null references issuer,
    certificate bytea not null,
    key_ref text not null,
    signature_algorithm text not null,
    not_before bigint not null,
    not_after bigint not null,
    state text not null check (state in ('active', 'retiring', 'retired')),
    created_at bigint not null,
    tx xid8 not null default pg_current_xact_id()
);

-- What nodes apply. Append-only, partitioned by time; a row carries a batch (quash.cache.layout knows the payload).
create table feed (
    id bigint generated always as identity,
    tx xid8 not null default pg_current_xact_id(),
    written_at bigint not null,
    lane smallint not null check (lane in (0, 1)),
    kind text not null check (kind in ('records', 'template', 'issuer', 'heartbeat')),
    issuer_id smallint,
    payload bytea not null
) partition by range (written_at);
create index feed_tx on feed (tx, id);

-- One CRL of an issuer: full (shard null) or a shard.
create table crl_scope (
    issuer_id smallint not null references issuer,
    scope text not null,                  -- 'full' or the shard's number
    shard integer,
    url text not null,                    -- as in the CRLDP; the shard's IDP carries these bytes (B15)
    path text not null unique,            -- where the publisher puts it and the origin serves it
    idp boolean not null,
    primary key (issuer_id, scope)
);
create unique index crl_scope_shard on crl_scope (issuer_id, shard) nulls not distinct;

-- Every CRL that was begun. Its `number` is committed before anything is signed, so it never comes back (B7): a crash skips
-- a number. `size` and `sha256` follow with the signature, `published_at` with the publication.
create table crl (
    issuer_id smallint not null,
    scope text not null,
    number numeric(49) not null,
    this_update bigint not null,
    next_update bigint not null,
    entries integer not null,
    size bigint,
    sha256 bytea,
    covers pg_snapshot not null,          -- a revocation is covered when its transaction is visible in it
    scheduled boolean not null,           -- regularly scheduled, in the sense of B13
    published_at bigint,
    tx xid8 not null default pg_current_xact_id(),
    primary key (issuer_id, scope, number),
    foreign key (issuer_id, scope) references crl_scope
);
create index crl_scheduled on crl (issuer_id, scope, number) where scheduled and published_at is not null;

-- The CA signer's own log: what it signed, kept before the bytes leave it. Append-only.
create table signing_log (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    at bigint not null,
    kind text not null check (kind in ('precertificate', 'certificate', 'crl')),
    issuer_id smallint not null references issuer,
    serial bytea,
    scope text,
    number numeric(49),
    tbs_sha256 bytea not null,
    der bytea                             -- of certificates: a crash after this row loses nothing; null for CRLs
);
create unique index signing_log_certificate on signing_log (issuer_id, serial, kind) where serial is not null;
create unique index signing_log_crl on signing_log (issuer_id, scope, number) where number is not null;

create table operator (
    fingerprint bytea primary key check (octet_length(fingerprint) = 32),  -- SHA-256 of the client certificate
    name text not null,
    person text not null,
    role text not null check (role in ('viewer', 'operator', 'officer', 'auditor')),
    state text not null check (state in ('active', 'disabled')),
    added_at bigint not null
);

-- Durable, resumable work, for example the siblings of a key above one batch.
create table job (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    kind text not null check (kind in ('siblings')),
    state text not null check (state in ('running', 'done')),
    spki_sha256 bytea,
    reason smallint not null,
    revoked_at bigint not null,
    total bigint not null,
    done bigint not null,
    act_id bigint not null references act,
    created_at bigint not null,
    updated_at bigint not null
);

-- Where each "new since" reader of this database stands.
create table reader_position (
    reader text primary key,
    system_id text not null,
    position xid8 not null,
    updated_at bigint not null
);

-- A lease is a session's advisory lock; `fence` rises with each holder, and each insert under the lease compares it.
create table lease (
    name text primary key,
    fence bigint not null
);

do $$
declare t text;
begin
    foreach t in array array['act', 'revocation', 'blocked_key', 'kill_switch', 'signing_log'] loop
        execute format('create trigger append_only before update or delete or truncate on %I execute function refuse_change()', t);
    end loop;
end $$;
