-- What a self-audit counted, by the signing log: the next one's population is all that was signed since, and what was
-- signed before but committed afterwards (F12). Null: an audit of an earlier release.
alter table self_audit add column counted pg_snapshot;
