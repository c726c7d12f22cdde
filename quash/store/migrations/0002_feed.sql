-- Partitions of the feed, and what the presigner remembers of certificates.

-- The issuer's signature on a certificate with this serial was verified once; a refresh need not read the DER again.
-- Rows are only ever added, by the presigner, with the first `good` that it signs.
create table proven_certificate (
    issuer_id smallint not null,
    serial bytea not null,
    primary key (issuer_id, serial)
);

create table feed_partition (
    starts_at bigint primary key,
    ends_at bigint not null check (ends_at > starts_at)
);

-- Rows of transactions below `below` may have been dropped: a follower that stands lower rebuilds from the start.
create table feed_floor (
    single boolean primary key default true check (single),
    below xid8 not null
);
insert into feed_floor (below) values ('0');

-- Makes one partition. The table is made first and attached then, because attaching does not stop readers and writers.
create function feed_add_partition(p_starts_at bigint, p_ends_at bigint) returns boolean
language plpgsql security definer set search_path = quash, pg_temp as $$
declare
    name text := 'feed_' || p_starts_at;
begin
    insert into feed_partition (starts_at, ends_at) values (p_starts_at, p_ends_at) on conflict do nothing;
    if not found then
        return false;
    end if;
    execute format('create table %I (like feed including defaults including constraints)', name);
    execute format('alter table feed attach partition %I for values from (%s) to (%s)', name, p_starts_at, p_ends_at);
    return true;
end $$;

-- Whether a node that starts without this partition could lose something.
--
-- Let P be the partition, t the greatest transaction that wrote to it, and x the least pass_xmin of all buckets, which is
-- the xmin of a snapshot taken before that bucket's last complete pass read anything. Only t < x lets P go:
--   * t ended before every such snapshot, so did the revocations that P's records tell of, for they were read first:
--     the pass saw them, and its records have the same version or a greater one;
--   * the pass wrote its records in transactions >= x, so none of them lies in P;
--   * a bucket without a complete pass, or with a late one, keeps P: then no drop can un-revoke at a new node.
create function feed_partition_needed(p_starts_at bigint) returns boolean
language plpgsql set search_path = quash, pg_temp as $$
declare
    needed boolean;
begin
    execute format(
        'select exists (select from bucket where pass_xmin is null)
             or exists (select from %I where tx >= (select min(pass_xmin) from bucket))',
        'feed_' || p_starts_at
    ) into needed;
    return needed;
end $$;

-- Drops one partition when nobody needs it any more; false: it is needed, it is not over, or it does not exist.
--
-- No row can enter it after the second look: the lock waits for the writers under way, and later ones find no partition
-- and fail. It is taken on the parent first, as every reader and writer does, and given up soon (lock_timeout), because
-- others queue behind it; the first look keeps us from taking it in vain.
create function feed_drop_partition(p_starts_at bigint, p_now bigint) returns boolean
language plpgsql security definer set search_path = quash, pg_temp set lock_timeout = '200ms' as $$
declare
    name text := 'feed_' || p_starts_at;
    last_tx xid8;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'feed_drop_partition needs read committed: an older snapshot would not see the last writers';
    end if;
    perform from feed_partition where starts_at = p_starts_at and ends_at <= p_now;
    if not found or feed_partition_needed(p_starts_at) then
        return false;
    end if;
    lock table feed in access exclusive mode;
    if feed_partition_needed(p_starts_at) then
        return false;
    end if;
    execute format('select max(tx) from %I', name) into last_tx;
    execute format('drop table %I', name);
    delete from feed_partition where starts_at = p_starts_at;
    update feed_floor set below = greatest(below, (last_tx::text::bigint + 1)::text::xid8) where last_tx is not null;
    return true;
end $$;

revoke execute on function feed_add_partition(bigint, bigint), feed_drop_partition(bigint, bigint),
    feed_partition_needed(bigint) from public;
