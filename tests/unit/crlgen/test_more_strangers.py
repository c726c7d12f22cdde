"""Our CRLs in front of programs that decide by them: GnuTLS's certtool and Java's PKIX checker (B14, B15, B20)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from quash.runtime.clock import FakeClock
from tests.support.crl_bench import Bench, openssl
from tests.unit.crlgen.test_strangers import SCOPE_IDS, SCOPES, leaf

REPOSITORY = Path(__file__).parents[3]
KEYS = ["ec", "rsa"]


@pytest.fixture
def clock() -> FakeClock:
    """A minute ago: not all versions of certtool can be told another time than that of the machine."""
    return FakeClock(time.time() - 60)


async def judged(
    bench: Bench, folder: Path, key: str, name: str, shard: int | None, limited: bool = False
) -> dict[str, Path]:
    """Files of a CA, one of its CRLs, and a good and a revoked certificate that name it."""
    ca = await bench.issuer("dv", shards=2, key=key)
    if limited:
        await bench.limit(ca)
    good = await bench.certificate(ca, shard=shard)
    bad = await bench.revoked(ca, 1, shard=shard)
    await bench.settle()
    (folder / "ca.pem").write_bytes(ca.pem)
    crl = folder / "crl.pem"
    assert openssl("crl", "-inform", "DER", "-in", str(bench.path(name)), "-out", str(crl)).returncode == 0
    url, now = f"http://crl.example.test/{name}", bench.clock.now()
    leaves = {
        word: leaf(ca, serial, now, folder / f"{word}.pem", url) for word, serial in (("good", good), ("bad", bad))
    }
    return {"ca": folder / "ca.pem", "crl": crl, "der": bench.path(name), **leaves}


def certtool(*arguments: str) -> tuple[bool, str]:
    """Whether it is content, and what it said."""
    done = subprocess.run(["certtool", *arguments], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("name", "shard", "limited"), SCOPES, ids=SCOPE_IDS)
async def test_certtool_refuses_the_revoked_and_only_the_revoked(
    bench: Bench, tmp_path: Path, key: str, name: str, shard: int | None, limited: bool
) -> None:
    """GnuTLS verifies the CRL's signature and issuer, and finds the one serial that is on it."""
    found = await judged(bench, tmp_path, key, name, shard, limited)
    ca = ["--load-ca-certificate", str(found["ca"])]
    content, said = certtool("--verify-crl", *ca, "--infile", str(found["crl"]))
    assert content, said
    assert "Verified" in said
    verify = ["--verify", *ca, "--load-crl", str(found["crl"])]
    content, said = certtool(*verify, "--infile", str(found["good"]))
    assert content, said
    content, said = certtool(*verify, "--infile", str(found["bad"]))
    assert not content
    assert "revoked" in said


JAVA = """
import java.io.FileInputStream;
import java.security.cert.*;
import java.util.*;

/** Arguments: Unix seconds, CA, CRL, certificate. Prints GOOD, or why not. */
public class Judge {
    public static void main(String[] args) throws Exception {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        X509Certificate ca = (X509Certificate) factory.generateCertificate(new FileInputStream(args[1]));
        CRL crl = factory.generateCRL(new FileInputStream(args[2]));
        Certificate leaf = factory.generateCertificate(new FileInputStream(args[3]));
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(ca, null)));
        parameters.setDate(new Date(Long.parseLong(args[0]) * 1000));
        parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(List.of(crl))));
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        checker.setOptions(EnumSet.of(PKIXRevocationChecker.Option.PREFER_CRLS,
            PKIXRevocationChecker.Option.NO_FALLBACK));
        parameters.addCertPathChecker(checker);
        try {
            validator.validate(factory.generateCertPath(List.of(leaf)), parameters);
            System.out.println("GOOD");
        } catch (CertPathValidatorException error) {
            System.out.println(error.getReason() + " " + error.getMessage());
        }
    }
}
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program; Debian's headless JDK is installed where it is missing."""
    subprocess.run([REPOSITORY / "tools" / "install-debian", "default-jdk-headless:javac"], check=True)
    folder = tmp_path_factory.mktemp("java")
    (folder / "Judge.java").write_text(JAVA)
    subprocess.run(["javac", "Judge.java"], cwd=folder, check=True)
    return folder


def java(judge: Path, bench: Bench, found: dict[str, Path], word: str, *, crl: Path | None = None) -> str:
    files = [str(found["ca"]), str(crl or found["der"]), str(found[word])]
    command = ["java", "-cp", str(judge), "Judge", str(int(bench.clock.now())), *files]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.long
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("name", "shard", "limited"), SCOPES, ids=SCOPE_IDS)
async def test_java_refuses_the_revoked_and_only_the_revoked(
    bench: Bench, tmp_path: Path, judge: Path, key: str, name: str, shard: int | None, limited: bool
) -> None:
    """Java's PKIX revocation checker, CRLs alone and no fallback: full and sharded, EC and RSA."""
    found = await judged(bench, tmp_path, key, name, shard, limited)
    assert java(judge, bench, found, "good") == "GOOD"
    assert java(judge, bench, found, "bad").startswith("REVOKED")


@pytest.mark.long
async def test_java_does_not_take_one_shard_for_another(bench: Bench, tmp_path: Path, judge: Path) -> None:
    """With another shard's CRL alone, Java does not know, which is not the same as good (B15)."""
    found = await judged(bench, tmp_path, "ec", "dv/1.crl", 1)
    said = java(judge, bench, found, "good", crl=bench.path("dv/0.crl"))
    assert said.startswith("UNDETERMINED_REVOCATION_STATUS"), said
