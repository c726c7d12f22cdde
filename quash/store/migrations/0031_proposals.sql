-- What two officers must agree on: one proposes, another person approves exactly that (its hash), before it expires.
create table proposal (
    id bigint generated always as identity primary key,
    at bigint not null,
    expires_at bigint not null,
    action text not null,
    payload jsonb not null,
    sha256 bytea not null check (octet_length(sha256) = 32),   -- of action and payload, canonically
    operator bytea not null references operator,
    person text not null,
    act_id bigint not null references act
);
create table approval (
    proposal_id bigint primary key references proposal,
    at bigint not null,
    operator bytea not null references operator,
    person text not null,
    act_id bigint not null references act
);
-- The client certificate that an approved proposal led to: the operators' CA signs once for each.
create table operator_certificate (
    proposal_id bigint primary key references approval,
    fingerprint bytea not null references operator,
    der bytea not null,
    at bigint not null
);
create trigger append_only before update or delete or truncate on proposal execute function refuse_change();
create trigger append_only before update or delete or truncate on approval execute function refuse_change();
create trigger append_only before update or delete or truncate on operator_certificate execute function refuse_change();
