-- Who signed a bucket: how far an emergency switch is, job `switch-<id>`, is read from these, and so survives whatever dies.
alter table bucket add column signer_id smallint references ocsp_signer;  -- of its last complete pass; null: not known
