-- Finding certificates by name. The names stand in the certificate's octets, so they are indexed from there: whatever wrote the
-- row (issuance, import), and without a second copy that could differ.

-- The DER length at a 0-based offset, and where the content begins.
create function der_header(octets bytea, at integer, out size integer, out content integer)
language plpgsql immutable strict parallel safe as $$
declare
    first integer := get_byte(octets, at + 1);
begin
    size := first;
    content := at + 2;
    if first > 128 then
        size := 0;
        for i in 1 .. first - 128 loop
            size := size * 256 + get_byte(octets, at + 1 + i);
        end loop;
        content := content + first - 128;
    end if;
end $$;

-- The DNS names and mailboxes of a subjectAltName, in lower case; each also as '.parent' for every parent domain, and a mailbox
-- as '@domain': so that all below a domain are one look-up. Octets that are no certificate have none.
create function certificate_names(octets bytea) returns text[]
language plpgsql immutable strict parallel safe as $$
declare
    found text[] := '{}';
    at integer := position('\x0603551d11'::bytea in octets) + 4;
    head record;
    stop integer;
    name text;
begin
    if at = 4 then
        return found;
    end if;
    if get_byte(octets, at) = 1 then  -- critical
        at := at + 3;
    end if;
    head := quash.der_header(octets, at);   -- OCTET STRING
    head := quash.der_header(octets, head.content);   -- SEQUENCE
    at := head.content;
    stop := at + head.size;
    while at < stop loop
        head := quash.der_header(octets, at);
        if get_byte(octets, at) in (129, 130) then
            name := lower(convert_from(substr(octets, head.content + 1, head.size), 'LATIN1') collate "C");
            found := found || name;
            if position('@' in name) > 0 then
                found := found || substr(name, position('@' in name));
            end if;
            name := substr(name, greatest(position('@' in name), position('.' in name)));
            while position('.' in substr(name, 2)) > 0 loop
                found := found || ('.' || ltrim(name, '@.'));
                name := substr(name, 1 + position('.' in substr(name, 2)));
            end loop;
        end if;
        at := head.content + head.size;
    end loop;
    return found;
exception when others then
    return found;
end $$;

create index certificate_name on certificate using gin (certificate_names(coalesce(der, tbs))) where coalesce(der, tbs) is not null;
create index certificate_created on certificate using brin (created_at);
create index certificate_expires on certificate using brin (not_after);
create index certificate_of_order on certificate (order_id) where order_id is not null;
create index certificate_order_account on certificate_order (operator);

-- The answer to a change that named itself (Idempotency-Key), for a day; null: its outcome is not known.
create table idempotent_request (
    operator bytea not null,
    key text not null,
    request_sha256 bytea not null,
    at bigint not null,
    status smallint,
    body bytea,
    primary key (operator, key)
);
create index idempotent_request_at on idempotent_request (at);
