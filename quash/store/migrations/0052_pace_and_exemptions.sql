-- The pace of a mass revocation: so many certificates a second, or done by a moment; neither: as fast as it can.
alter table mass_job
    add column max_per_second double precision check (max_per_second > 0),
    add column finish_by bigint,
    add column next_at double precision not null default 0,   -- Unix seconds, with a fraction: no batch before
    add column exempt bigint not null default 0,              -- of the set: left out by two officers' decision
    add constraint one_pace check (max_per_second is null or finish_by is null);

-- Two officers' decision that mass revocations leave a certificate out, for a time. Append-only; what ends early has its row.
create table exemption (
    id bigint generated always as identity primary key,
    issuer_id smallint not null,
    serial bytea not null,
    why text not null,
    until bigint not null,
    at bigint not null,
    act_id bigint not null references act,       -- of the approval
    foreign key (issuer_id, serial) references certificate
);
create index exemption_until on exemption (until);
create index exemption_certificate on exemption (issuer_id, serial);
create table exemption_end (
    exemption_id bigint primary key references exemption,
    at bigint not null,
    why text not null,
    act_id bigint not null references act
);
-- What a mass revocation left out, and by which decision.
create table mass_job_exempt (
    job_id bigint not null references mass_job,
    issuer_id smallint not null,
    serial bytea not null,
    exemption_id bigint not null references exemption,
    primary key (job_id, issuer_id, serial)
);
do $$
declare t text;
begin
    foreach t in array array['exemption', 'exemption_end', 'mass_job_exempt'] loop
        execute format('create trigger append_only before update or delete or truncate on %I execute function refuse_change()', t);
    end loop;
end $$;
