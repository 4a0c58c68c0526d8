"""Key schedule, pre-shared keys, secret tree and framing: official vectors (RFC 9420 sections 6, 8, 9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket.codec import tls
from lokket.errors import DuplicateMessage, LocalError, RemoteError
from lokket.protocol.mls import framing, key_schedule, messages, proposals
from lokket.protocol.mls.messages import ContentType, WireFormat
from lokket.protocol.mls.psk import psk_secret
from lokket.protocol.mls.secret_tree import secret_tree, sender_data_key
from lokket.protocol.mls.structs import GroupContext
from lokket.protocol.mls.suite import SUITES, CipherSuite
from lokket.system import SystemEntropy
from tests.vectors.mls.loader import load, raw

ENTROPY = SystemEntropy()


def test_key_schedule() -> None:
    for case in load("key-schedule"):
        suite = SUITES[case["cipher_suite"]]
        init = raw(case["initial_init_secret"])
        for number, epoch in enumerate(case["epochs"]):
            hashes = raw(epoch["tree_hash"]), raw(epoch["confirmed_transcript_hash"])
            context = GroupContext(1, suite.number, raw(case["group_id"]), number, *hashes, ())
            assert context.encoded == raw(epoch["group_context"])
            joiner = key_schedule.joiner_secret(suite, init, raw(epoch["commit_secret"]), context)
            assert joiner == raw(epoch["joiner_secret"])
            member = key_schedule.member_secret(suite, joiner, raw(epoch["psk_secret"]))
            assert suite.derive_secret(member, b"welcome") == raw(epoch["welcome_secret"])
            welcome = raw(epoch["welcome_secret"])
            key, nonce = key_schedule.welcome_key(suite, member)
            assert key == suite.expand_with_label(welcome, b"key", b"", suite.key_bytes)
            assert nonce == suite.expand_with_label(welcome, b"nonce", b"", 12)
            secrets, encryption = key_schedule.epoch_secrets(
                suite, key_schedule.epoch_secret(suite, member, context)
            )
            assert encryption == raw(epoch["encryption_secret"])
            for name in secrets.__slots__:
                assert getattr(secrets, name) == raw(epoch[name]), name
            assert key_schedule.external_key_pair(suite, secrets).public == raw(epoch["external_pub"])
            one = epoch["exporter"]
            label, bound = one["label"].encode(), raw(one["context"])
            exported = key_schedule.export(suite, secrets, label, bound, one["length"])
            assert exported == raw(one["secret"])
            init = secrets.init_secret


@pytest.mark.parametrize("number", sorted(SUITES))
def test_external_init(number: int) -> None:
    suite = SUITES[number]
    secrets, _ = key_schedule.epoch_secrets(suite, ENTROPY.draw(suite.hash_bytes))
    public = key_schedule.external_key_pair(suite, secrets).public
    output, init = key_schedule.external_init(suite, public, ENTROPY)
    assert key_schedule.external_init_secret(suite, secrets, output) == init
    assert len(init) == suite.hash_bytes


def test_psk_secret() -> None:
    for case in load("psk_secret"):
        psks = [
            (
                proposals.PreSharedKeyID(proposals.ExternalPSK(raw(one["psk_id"])), raw(one["psk_nonce"])),
                raw(one["psk"]),
            )
            for one in case["psks"]
        ]
        assert psk_secret(SUITES[case["cipher_suite"]], psks) == raw(case["psk_secret"])


def test_secret_tree() -> None:
    for case in load("secret-tree"):
        suite = SUITES[case["cipher_suite"]]
        one = case["sender_data"]
        key = sender_data_key(suite, raw(one["sender_data_secret"]), raw(one["ciphertext"]))
        assert key == (raw(one["key"]), raw(one["nonce"]))
        tree = secret_tree(suite, len(case["leaves"]), raw(case["encryption_secret"]))
        for leaf, generations in enumerate(case["leaves"]):
            for one in generations:
                for name, kind in (
                    ("handshake", ContentType.COMMIT),
                    ("application", ContentType.APPLICATION),
                ):
                    number = one["generation"]
                    before = tree
                    tree, key = tree.take(leaf, kind, number)
                    assert key == (raw(one[f"{name}_key"]), raw(one[f"{name}_nonce"]))
                    assert before.take(leaf, kind, number)[1] == key, "a tree changed that was only read"
                    with pytest.raises(DuplicateMessage):
                        tree.take(leaf, kind, number)
        assert not list(tree.nodes), "secrets of the tree stand although every leaf was derived"


def signed(
    suite: CipherSuite,
    private: bytes,
    wire_format: WireFormat,
    content: messages.FramedContent,
    context: GroupContext,
) -> messages.AuthenticatedContent:
    signature = framing.sign(suite, private, wire_format, content, context)
    tag = bytes(suite.hash_bytes) if isinstance(content.content, proposals.Commit) else None
    return messages.AuthenticatedContent(wire_format, content, messages.FramedContentAuthData(signature, tag))


def test_message_protection() -> None:
    for case in load("message-protection"):
        suite = SUITES[case["cipher_suite"]]
        hashes = raw(case["tree_hash"]), raw(case["confirmed_transcript_hash"])
        context = GroupContext(1, suite.number, raw(case["group_id"]), case["epoch"], *hashes, ())
        membership_key, sender_data = raw(case["membership_key"]), raw(case["sender_data_secret"])
        public, private = raw(case["signature_pub"]), raw(case["signature_priv"])
        tree = secret_tree(suite, 2, raw(case["encryption_secret"]))
        contents: dict[str, messages.AnyContent] = {
            "proposal": proposals.decode_proposal(raw(case["proposal"])),
            "commit": tls.decode(proposals.Commit, raw(case["commit"])),
            "application": messages.ApplicationData(raw(case["application"])),
        }
        for name, content in contents.items():
            framed = messages.FramedContent(context.group_id, context.epoch, messages.Member(1), b"", content)

            given = messages.decode_message(raw(case[f"{name}_priv"]))
            assert isinstance(given, messages.PrivateMessage)
            _, made = framing.seal_private(
                signed(suite, private, WireFormat.PRIVATE_MESSAGE, framed, context),
                tree,
                sender_data,
                64,
                ENTROPY,
            )
            for message in (given, made):
                sender = framing.open_sender(suite, message, sender_data)
                assert sender.leaf_index == 1
                _, opened = framing.open_private(message, sender, tree)
                assert framing.verify(suite, opened, public, context).content.content == content
                with pytest.raises(RemoteError):
                    framing.open_private(replace(message, authenticated_data=b"x"), sender, tree)
            if name == "application":
                with pytest.raises(LocalError):
                    signed(suite, private, WireFormat.PUBLIC_MESSAGE, framed, context)
                continue
            given = messages.decode_message(raw(case[f"{name}_pub"]))
            assert isinstance(given, messages.PublicMessage)
            made_public = framing.seal_public(
                suite,
                signed(suite, private, WireFormat.PUBLIC_MESSAGE, framed, context),
                membership_key,
                context,
            )
            for public_message in (given, made_public):
                opened = framing.open_public(suite, public_message, membership_key, context)
                assert framing.verify(suite, opened, public, context).content.content == content
                with pytest.raises(RemoteError):
                    framing.open_public(
                        suite, replace(public_message, membership_tag=b"x"), membership_key, context
                    )


def test_transcript_hashes() -> None:
    for case in load("transcript-hashes"):
        suite = SUITES[case["cipher_suite"]]
        commit = tls.decode(messages.AuthenticatedContent, raw(case["authenticated_content"]))
        assert tls.encode(commit) == raw(case["authenticated_content"])
        before = raw(case["interim_transcript_hash_before"])
        confirmed = key_schedule.confirmed_transcript_hash(suite, before, commit)
        assert confirmed == raw(case["confirmed_transcript_hash_after"])
        tag = commit.auth.confirmation_tag
        assert tag == suite.mac(raw(case["confirmation_key"]), confirmed)
        interim = key_schedule.interim_transcript_hash(suite, confirmed, tag)
        assert interim == raw(case["interim_transcript_hash_after"])
