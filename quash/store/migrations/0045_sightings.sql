-- What shows that a revocation reached relying parties: its record in the feed, and what an outside probe first saw at each
-- responder (both hashes) and in the CRL, each with the hash of the signed octets. Append-only: the first sighting counts.
create table sighting (
    issuer_id smallint not null,
    serial bytea not null,
    version smallint not null,
    kind text not null check (kind in ('feed', 'ocsp', 'crl')),
    place text not null,                  -- the URL that was asked; empty for the feed
    hash text not null check (hash in ('', 'sha1', 'sha256')),    -- of the CertID that was asked for
    seen_at bigint not null,              -- of the feed: when it was written there
    signed_at bigint not null,            -- thisUpdate
    sha256 bytea not null check (octet_length(sha256) = 32),
    number numeric(49),                   -- of the CRL
    body bytea,                           -- the OCSP response; null where many were revoked at once
    primary key (issuer_id, serial, version, kind, place, hash),
    foreign key (issuer_id, serial, version) references revocation
);
create trigger append_only before update or delete or truncate on sighting execute function refuse_change();

-- What was not visible within a minute: looked at again, ever more rarely, until it is or the certificate has expired.
create table sighting_due (
    issuer_id smallint not null,
    serial bytea not null,
    version smallint not null,
    next_at bigint not null,
    primary key (issuer_id, serial, version),
    foreign key (issuer_id, serial, version) references revocation
);
create index sighting_due_next on sighting_due (next_at);
