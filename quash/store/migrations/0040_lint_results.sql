-- What each linter said of each throw-away-signed twin, refused or not (D47). `document` names the profile and the form.
create table lint_result (
    id bigint generated always as identity primary key,
    tx xid8 not null default pg_current_xact_id(),
    at bigint not null,
    order_id uuid not null references certificate_order,
    document text not null,
    linter text not null,
    version text not null,
    findings jsonb not null,              -- [{severity, code, message}], every one of them
    refused boolean not null              -- at least one finding at or above the configured level, and not exempt
);
create index lint_result_order on lint_result (order_id);
create trigger append_only before update or delete or truncate on lint_result execute function refuse_change();
