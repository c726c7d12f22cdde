-- Signatures do not compress: the attempt costs as much as writing them. New partitions take the parent's storage over.
alter table feed alter column payload set storage external;

create or replace function feed_add_partition(p_starts_at bigint, p_ends_at bigint) returns boolean
language plpgsql security definer set search_path = quash, pg_temp as $$
declare
    name text := 'feed_' || p_starts_at;
begin
    insert into feed_partition (starts_at, ends_at) values (p_starts_at, p_ends_at) on conflict do nothing;
    if not found then
        return false;
    end if;
    execute format('create table %I (like feed including defaults including constraints including storage)', name);
    execute format('alter table feed attach partition %I for values from (%s) to (%s)', name, p_starts_at, p_ends_at);
    return true;
end $$;
