-- A date that neither a CRL nor an OCSP answer can carry (1970 to 9999) would block its whole scope, and rows stay for ever.
alter table revocation add constraint revocation_dates check (revoked_at between 0 and 253402300799);
