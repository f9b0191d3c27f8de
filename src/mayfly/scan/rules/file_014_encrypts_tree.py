"""MF-FILE-014."""

from __future__ import annotations

from mayfly.scan.facts import CallUse, FileUse, ProgramEnd
from mayfly.scan.rule import Hit, Rule, Scene

__all__ = ["RULE"]

_LIBRARIES = ("cryptography.", "Crypto.", "Cryptodome.", "nacl.", "pyAesCrypt")
_VERBS = ("encrypt", "update", "encryptFile", "encryptor")


def _check(fact: ProgramEnd, _scene: Scene) -> Hit | None:
    walks = any(f.op == "list" for f in fact.of(FileUse))
    shell = [f for f in fact.of(FileUse) if f.op == "encrypt" and f.in_loop]
    ciphers = any(f.name.startswith(_LIBRARIES) and f.name.endswith(_VERBS) for f in fact.of(CallUse))
    changed = any(
        f.op in ("write", "delete", "rename") and (f.in_loop or "walk" in f.path.taints) for f in fact.of(FileUse)
    )
    if shell or (walks and ciphers and changed):
        return Hit("walks a tree and encrypts its files")
    return None


RULE = Rule(
    id="MF-FILE-014",
    title="Encrypts the files of a tree",
    rationale="Walking a directory, encrypting each file and removing the original is what ransomware does.",
    severity="high",
    cwe="CWE-506",
    confidence="high",
    capabilities=("fs-write",),
    facts=(ProgramEnd,),
    check=_check,
    examples={
        "python": (
            "import os\n"
            "from cryptography.fernet import Fernet\n"
            "f = Fernet(Fernet.generate_key())\n"
            "for d, _, names in os.walk('.'):\n"
            "    for n in names:\n"
            "        p = os.path.join(d, n)\n"
            "        data = open(p, 'rb').read()\n"
            "        open(p, 'wb').write(f.encrypt(data))\n"
        ),
        "bash": 'for f in *; do openssl enc -aes-256-cbc -in "$f" -out "$f.x"; rm "$f"; done',
    },
    near_misses={
        "python": ("from cryptography.fernet import Fernet\nf = Fernet(Fernet.generate_key())\nprint(f.encrypt(b'x'))"),
        "bash": "openssl enc -aes-256-cbc -in a -out b",
    },
    languages=("python", "bash"),
)
