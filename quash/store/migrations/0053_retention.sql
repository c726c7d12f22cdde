-- F4: what tells of certificates, CRLs, signers and operators is kept; no role can drop it, the owner included. (Tables that are
-- append-only refuse it already, and so does `certificate`.) What may go is listed in docs/adr/0003-nothing-is-deleted.md.
do $$
declare t text;
begin
    foreach t in array array['issuer', 'issuer_certificate', 'certificate_order', 'crl', 'crl_scope', 'ocsp_signer', 'signer_request',
                             'operator', 'job', 'mass_job'] loop
        execute format('create trigger kept before delete or truncate on %I execute function refuse_change()', t);
    end loop;
end $$;
