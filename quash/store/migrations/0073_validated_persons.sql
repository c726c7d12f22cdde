-- Persons whom an organization speaks for are validated like it (D49, G38): `TN/Essai/GN=Amel/SN=Ben Salah`.
alter table validated_identifier drop constraint validated_identifier_kind_check;
alter table validated_identifier add constraint validated_identifier_kind_check
    check (kind in ('dns', 'email', 'organization', 'person'));
