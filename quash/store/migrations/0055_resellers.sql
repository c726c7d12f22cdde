-- Resellers (G42): operators of somebody else's. Each belongs to an account, and sees and revokes that account's alone.
alter table operator drop constraint operator_role_check;
alter table operator add column account text check (account ~ '^[a-z0-9][a-z0-9.-]{0,62}$');
alter table operator add constraint operator_role_check
    check (role in ('viewer', 'operator', 'officer', 'auditor', 'reseller'));
alter table operator add constraint operator_reseller_check check ((role = 'reseller') = (account is not null));
-- An order's `operator` is the account that it is for; who of a reseller's operators sent it stands here, else null.
alter table certificate_order add column submitted_by text;
