-- A CRL's URL may move (another port, another host): certificates carry the one in force at their issuance, so a shard's
-- IDP names all of them, the present one first (B15, B16). None is ever removed.
alter table crl_scope add column former_urls text[] not null default '{}';
