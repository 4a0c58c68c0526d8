"""Is a backup good? It is restored, really, into a vault that lives for this alone, and counted there."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from lokket.client import backup
from lokket.client.backup import ArchiveFile
from lokket.client.direct import DirectClient
from lokket.crypto.entropy import Entropy
from lokket.engine import archive, events
from lokket.errors import LocalError
from lokket.protocol import identity

_NOWHERE = "ws://127.0.0.1:9"  # the scratch account is never registered


@dataclass(frozen=True, slots=True)
class Verified:
    contacts: int
    messages: int


async def verify(file: ArchiveFile, key: bytes, entropy: Entropy) -> Verified:
    """LocalError: it does not open, or gives back less than it holds.

    The scratch vault is encrypted under a key that is nowhere but in memory.
    """
    expected = file.judge(key)
    with tempfile.TemporaryDirectory(prefix="lokket-verify-") as folder:
        client = await DirectClient.begin(Path(folder) / "vault", entropy.draw(32), create=True, online=False)
        try:
            code = identity.new_recovery_code(entropy)
            await client.perform(events.CreateAccount("", None, _NOWHERE, bytes(32), code))
            await backup.restore(client, file, key, other_account=True)
            counted = client.read(archive.count)
        finally:
            await client.close()
    if counted != expected:
        raise LocalError(
            f"the backup opens, but of {expected[0]} contacts and {expected[1]} messages "
            f"only {counted[0]} and {counted[1]} can be restored"
        )
    return Verified(*counted)
