"""Which of pkilint's validators judge a part of a certificate by that part alone, and may be remembered with it.

A part is what `issuer.checks.parts` cuts out: an extension, a name, an algorithm identifier. Those listed look at the
node that they are given, at what lies below it, at what stands above it within the part, and at the kinds of nodes
above that; never at the document, nor at another part. Each was read for that, in the pinned release of pkilint; who
is not listed runs every time. `tests/unit/checks/test_dispatch.py` takes parts of certificates apart and puts others
together from them, and compares with pkilint as it comes.
"""

from __future__ import annotations

from typing import Final

from pkilint.cabf import cabf_extension
from pkilint.cabf.serverauth import serverauth_extension, serverauth_key, serverauth_name, serverauth_subscriber
from pkilint.common import alternative_name
from pkilint.pkix import extension, general_name
from pkilint.pkix.certificate import certificate_extension, certificate_transparency

LOCAL: Final = frozenset(
    {
        alternative_name.GeneralNameDnsNameInternalDomainNameValidator,
        alternative_name.GeneralNameInternalIpAddressValidator,
        alternative_name.GeneralNameRfc822NameInternalDomainNameValidator,
        alternative_name.GeneralNameUriInternalDomainNameValidator,
        cabf_extension.CabfAuthorityKeyIdentifierValidator,
        certificate_extension.AuthorityInformationAccessCriticalityValidator,
        certificate_extension.BasicConstraintsValidator,
        certificate_extension.CertificatePolicyQualifierValidator,
        certificate_extension.CrlDpCriticalityValidator,
        certificate_extension.CtPrecertPoisonCriticalityValidator,
        certificate_extension.DuplicatePolicyValidator,
        certificate_extension.KeyUsageCriticalityValidator,
        certificate_extension.SubjectKeyIdentifierCriticalityValidator,
        certificate_transparency.SctListElementCountValidator,
        extension.AuthorityKeyIdentifierCriticalityValidator,
        extension.AuthorityKeyIdentifierValidator,
        extension.DistributionPointValidator,
        general_name.GeneralNameDnsNameDomainNameLengthValidator,
        general_name.GeneralNameDnsNameSyntaxValidator,
        general_name.GeneralNameIpAddressSyntaxValidator,
        general_name.GeneralNameMailboxAddressSyntaxValidator,
        general_name.GeneralNameRfc822NameDomainNameLengthValidator,
        general_name.GeneralNameUriDomainNameLengthValidator,
        general_name.GeneralNameUriSyntaxValidator,
        serverauth_extension.AuthorityInformationAccessHttpUriLocationValidator,
        serverauth_extension.AuthorityInformationAccessUniqueLocationValidator,
        serverauth_extension.CrlDpDistributionPointCountValidator,
        serverauth_extension.CrlDpDistributionPointNameValidator,
        serverauth_extension.CrlDpDistributionPointValidator,
        serverauth_key.ServerauthAllowedSignatureAlgorithmEncodingValidator,
        serverauth_name.DnsNameLdhLabelSyntaxValidator,
        serverauth_name.TorVersion3DomainNameValidator,
        serverauth_subscriber.SubscriberAuthorityInformationAccessAccessMethodPresenceValidator,
        serverauth_subscriber.SubscriberBasicConstraintsValidator,
        serverauth_subscriber.SubscriberEkuAllowanceValidator,
        serverauth_subscriber.SubscriberExtensionCriticalityValidator,
        serverauth_subscriber.SubscriberPoliciesValidator,
        serverauth_subscriber.SubscriberSanGeneralNameTypeValidator,
    }
)
