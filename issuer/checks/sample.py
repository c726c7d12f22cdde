"""A DV certificate of nobody's, for linters to show on that they work: `quash doctor` gives it to each."""

from __future__ import annotations

import base64
from typing import Final

CERTIFICATE: Final = base64.b64decode(
    """
    MIICbDCCAhKgAwIBAgIQAQIDBAUGBwgJCgsMDQ4PEDAKBggqhkjOPQQDAjA+MQswCQYDVQQGEwJU
    TjETMBEGA1UECgwKUXVhc2ggVGVzdDEaMBgGA1UEAwwRUXVhc2ggVGVzdCB0bHMtZHYwHhcNMjcw
    MTE1MDgwMDAwWhcNMjcwODAyMDc1OTU5WjAAMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEidrP
    gOVhgM2bOno5RH57qEnLl2prwEGUbUG7b6qlNl6mLTtL/nJAdZk02MtZ/jzHQpMXSMZ34myeApGf
    N782C6OCAS4wggEqMA4GA1UdDwEB/wQEAwIHgDATBgNVHSUEDDAKBggrBgEFBQcDATAMBgNVHRMB
    Af8EAjAAMB8GA1UdIwQYMBaAFLQ1+8VFEnBptjMrw5sziKcibBRoMGsGCCsGAQUFBwEBBF8wXTAr
    BggrBgEFBQcwAYYfaHR0cDovL29jc3AucXVhc2guZXhhbXBsZS5vcmcvYTAuBggrBgEFBQcwAoYi
    aHR0cDovL2NybC5xdWFzaC5leGFtcGxlLm9yZy9hLmNlcjAdBgNVHREBAf8EEzARgg93d3cuZXhh
    bXBsZS5vcmcwEwYDVR0gBAwwCjAIBgZngQwBAgEwMwYDVR0fBCwwKjAooCagJIYiaHR0cDovL2Ny
    bC5xdWFzaC5leGFtcGxlLm9yZy9hLmNybDAKBggqhkjOPQQDAgNIADBFAiEA1qvTdESp2MZB7GQA
    Zbj/uvpoios4G4lj484LzWcBDHoCIEZ82FiajWPr2+BVhTuQenlj/XswZkETvcp+QGSeoEzm
    """
)
"""DER; made once by `issuer.profiles.build_twin`, signed by a key that was thrown away."""
