-- CAs of private PKIs: taken over as imported ones, outside the public rule sets. Ed25519 keys are theirs alone (A18, D40).
alter table issuer drop constraint issuer_kind_check;
alter table issuer add constraint issuer_kind_check check (kind in ('root', 'sub-ca', 'imported', 'private'));
alter table issuer add constraint issuer_ed25519_is_private check (signature_algorithm <> 'ed25519' or kind = 'private');
