-- Proof that a key is compromised (C14). A private key itself is never kept: `proof` is what anybody can verify with the
-- public key alone. A challenge is good once, for an hour.
create table compromise_challenge (
    challenge text primary key,
    at bigint not null,
    expires_at bigint not null,
    act_id bigint not null references act
);
create table key_evidence (
    id bigint generated always as identity primary key,
    at bigint not null,
    kind text not null check (kind in ('private-key', 'csr', 'jws')),
    spki bytea not null,
    proof bytea not null,
    sha256 bytea not null check (octet_length(sha256) = 32),   -- of what was handed in
    challenge text unique references compromise_challenge,
    act_id bigint not null references act
);
create index key_evidence_key on key_evidence (sha256(spki));
create trigger append_only before update or delete or truncate on compromise_challenge execute function refuse_change();
create trigger append_only before update or delete or truncate on key_evidence execute function refuse_change();
