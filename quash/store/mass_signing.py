"""What of mass revocations is revoked, and is yet to be signed for OCSP.

It follows from what the presigner commits anyhow: how far it took up the bulk news, and which buckets are due. News and
buckets do not say by whom they are, so this is rather too much than too little: other bulk news of the same issuers
count, up to what the job has, and so does a bucket of the job whose refresh is due the first time after it.
"""

from __future__ import annotations

from collections.abc import Collection

from quash.store import buckets, outbox
from quash.store.database import Connection

# Of a bucket that is signed anew as a whole there is one row of news, then it is due; of others a row a certificate,
# and they are due as a whole where a certificate could not be signed.
_TO_SIGN = """
with unread as materialized (
    select issuer_id, bucket, count(*) as news from outbox
    where lane = $3 and kind in ('certificate', 'bucket')
        and tx >= coalesce((select position from reader_position where reader = $4), '0')
    group by 1, 2
), reached as (
    select m.job_id, m.issuer_id, m.certificates, m.whole,
        u.news is not null or (k.due_at <= $2 and coalesce(k.passed_at, 0) <= j.updated_at + $5) as waits
    from mass_job j join mass_job_bucket m on m.job_id = j.id
        and (m.issuer_id, m.rank) <= (j.after_issuer, j.after_rank)
    join bucket k on k.issuer_id = m.issuer_id and k.bucket = m.rank % 65536
    left join unread u on u.issuer_id = k.issuer_id and u.bucket = k.bucket
    where j.id = any($1)
), left_of as (
    select r.job_id, least(sum(certificates), coalesce(sum(certificates) filter (where waits), 0)
        + least(coalesce(sum(certificates) filter (where not whole), 0), coalesce(max(u.news), 0))) as certificates
    from reached r left join unread u on u.issuer_id = r.issuer_id and u.bucket is null group by r.job_id, r.issuer_id
)
select j.id, least(j.done, sum(l.certificates))::bigint as certificates
from left_of l join mass_job j on j.id = l.job_id group by j.id
"""


async def to_sign(conn: Connection, job_ids: Collection[int], now: int) -> dict[int, int]:
    """Certificates by job, at most those that it dealt with; a job of which nothing is revoked may be missing."""
    reader = outbox.reader(outbox.BULK).name
    rows = await conn.fetch(_TO_SIGN, list(job_ids), now, outbox.BULK, reader, buckets.CLOCK_SLACK)
    return {row["id"]: row["certificates"] for row in rows}
