"""Every bound of the system, in one file, with the relations between them asserted.

Units come last in a name (``_s`` seconds, ``_ms`` milliseconds, ``_days``, ``_bytes``); a name without
a unit counts things.
"""

from __future__ import annotations

from typing import Final

DAY_S: Final = 86_400

# --- pairwise sessions (docs/architecture.md, "Where lokket is stricter than libsignal") ---
SKIP_AHEAD_MAX: Final = 2_000  # messages one receiving chain may be advanced by a single header
SKIPPED_KEYS_MAX: Final = 2_000  # skipped message keys kept in one session, over all chains
RECEIVER_CHAINS_MAX: Final = 5  # Double Ratchet receiving chains kept
ARCHIVED_SESSIONS_MAX: Final = 5  # receive-only sessions kept for one remote device
ARCHIVED_SESSION_DAYS: Final = 14
UNACKNOWLEDGED_SESSION_DAYS: Final = 14  # an unanswered session is re-made when its manifest expires
PAIRWISE_MESSAGE_MAX_BYTES: Final = 256 * 1024

# --- sealed sender and sender keys, in libsignal's bytes ---
CERTIFICATE_MAX_BYTES: Final = 1_024
E164_MAX_CHARS: Final = 32
SEALED_MESSAGE_MAX_BYTES: Final = 384 * 1024  # a pairwise message, a certificate, shares for all recipients
SEALED_RECIPIENTS_MAX: Final = 1_000
SENDER_KEY_STATES_MAX: Final = 5  # chains kept of one sender in one distribution, newest first
SENDER_KEY_MESSAGE_MAX_BYTES: Final = 256 * 1024

# --- prekeys ---
SIGNED_PREKEY_ROTATE_DAYS: Final = 7
MANIFEST_LIFETIME_DAYS: Final = 14
MAILBOX_TTL_DAYS: Final = 30
PREKEY_PRIVATE_DAYS: Final = 45
PREKEY_PAIRS_PER_MANIFEST: Final = 128
FIRST_MESSAGE_MEMORY_DAYS: Final = 45

# --- accounts, devices, lists ---
DEVICES_MAX: Final = 10
DEVICE_NUMBER_MAX: Final = 127
ROTATIONS_MAX: Final = 64
LIST_VALID_DAYS: Final = 28
LIST_RENEW_DAYS: Final = 7
EXTENSIONS_MAX: Final = 16
EXTENSION_MAX_BYTES: Final = 4_096
PROFILES_MAX: Final = 32  # protocol profiles one device names
LINKS_MAX: Final = 2_048  # links in one catching-up: weekly renewals of 39 years
DEVICE_NUMBER_REST_DAYS: Final = 90  # a number returns no sooner after its revocation

# --- devices of one account ---
DEVICE_NAME_MAX_CHARS: Final = 64
LINK_CODE_VALID_S: Final = 600  # how long a code for a new device can be used
MEETINGS_MAX: Final = 1_000  # linkings under way at one relay, in memory only
KNOCK_MAX_BYTES: Final = 16 * 1024  # a device record and its name, sealed
HISTORY_PAGE_MAX: Final = 256  # messages
HISTORY_PAGE_BYTES: Final = 48 * 1024
HISTORY_PLACE_MAX_BYTES: Final = 128
HISTORY_REPEAT_S: Final = 600  # a page that did not come is asked for again
REVOKED_RETRY_S: Final = 60  # how often a device that the relay does not know asks whether it is back

# --- invites ---
INVITE_VALID_S: Final = DAY_S
INVITE_GRACE_S: Final = 7 * DAY_S

# --- content ---
PADDING_BLOCK_BYTES: Final = 256
CONTENT_MAX_BYTES: Final = 64 * 1024  # larger goes to an attachment
ACKNOWLEDGED_SEQS_MAX: Final = 10
CONTENT_IDS_MAX: Final = 64  # ids in one receipt or healing request
CONTENT_IDS_SMALL: Final = 6  # as many as surely fit the smallest bucket: senders split there
HEAL_REQUESTS_PER_DAY: Final = 5
HEAL_RESENDS_MAX: Final = 3
OUTBOX_DAYS: Final = 14

# --- engine ---
TEXT_MAX_BYTES: Final = 60 * 1024
WAITING_ENVELOPES_MAX: Final = 1_000  # held for accounts not yet known; more stay on the relay
REQUESTS_MAX: Final = 256  # strangers who wait to be accepted
REQUEST_MESSAGES_MAX: Final = 64  # of one stranger; more are dropped
QUARANTINE_MAX: Final = 1_000  # envelopes that did not open, newest kept
SEEN_DAYS: Final = 45  # envelope ids remembered: longer than the relay keeps mail
RECEIPTS_KEPT_DAYS: Final = 2  # our own receipts, in case the peer asks for them again
CURSORS_MAX: Final = 32  # named readers of one vault's messages
CURSOR_NAME_MAX_CHARS: Final = 64
CURSOR_DAYS: Final = 30  # not used for so long, with mail behind it: nothing more is kept for it
DEAD_LETTERS_MAX: Final = 200  # of one cursor; the oldest go
CHALLENGES_PER_SESSION_MAX: Final = 3  # sent in one session, or answered in it
CHALLENGE_REPEAT_S: Final = 60  # unanswered for so long: asked again with the next message

ALARM_DAYS: Final = 14  # an alarm stays in 'lokket doctor'

# --- wire ---
FRAME_MAX_BYTES: Final = 512 * 1024  # a full prekey batch: 128 pairs of 1.7 kB, signatures, manifest
ENVELOPE_BODY_MAX_BYTES: Final = 96 * 1024
NAME_MAX_CHARS: Final = 32
SEND_BATCH_MAX: Final = 32
ACK_BATCH_MAX: Final = 256
DELIVER_BATCH_MAX: Final = 64  # envelopes pushed and not yet acknowledged, per connection

# --- relay ---
LOGIN_VALID_S: Final = 60  # how long a greeting's nonce may be answered
LOGIN_ATTEMPTS_MAX: Final = 3  # per connection
LOGIN_WAIT_S: Final = 5  # from the open socket to the login
FRAME_BEFORE_LOGIN_MAX_BYTES: Final = 64 * 1024  # a registration: hybrid keys, one device, its proof
CONNECTIONS_MAX: Final = 10_000
CONNECTIONS_PER_ADDRESS_MAX: Final = 2_000  # many share one: the users behind a proxy, or this machine's
IDLE_PING_S: Final = 30
IDLE_CLOSE_S: Final = 75
SEND_WAIT_S: Final = 30  # for the other side to take a frame
DELIVER_FRAME_MAX_BYTES: Final = 256 * 1024  # of envelopes in one push
DELIVER_UNACKNOWLEDGED_MAX_BYTES: Final = 1024 * 1024  # pushed and not yet acknowledged, per connection
MAILBOX_COUNT_MAX: Final = 10_000  # per device
MAILBOX_MAX_BYTES: Final = 64 * 1024 * 1024
RECENT_ENVELOPES_MAX: Final = 65_536  # delivered ids remembered, in memory only, so that a late retry is mute
RECENT_ENVELOPE_S: Final = 3_600  # for so long
NAME_REST_DAYS: Final = 365
INVITES_OPEN_MAX: Final = 20  # per account
PAIRS_LOW: Final = 32  # at this many left the owner is told
BUDGETS_MAX: Final = 100_000  # rate limits kept in memory, oldest dropped first
EXPIRE_ROWS_PER_UPKEEP: Final = 500
UPKEEP_S: Final = 60
CLOCK_STEP_MAX_S: Final = 1_800  # between two upkeeps: more, or backwards, and the clock has jumped
CLOCK_EVEN_S: Final = 3_600  # without a jump before anything expires
DISK_RESERVE_BYTES: Final = 64 * 1024 * 1024  # kept free so that acknowledging and deleting go on
START_CHECK_MAX_BYTES: Final = 256 * 1024 * 1024  # of data: read whole at a start and after a disk failure
OPERATOR_INVITES_OPEN_MAX: Final = 1_000
ADMISSION_LOAD_MAX: Final = 4.0  # above it per processor, no new accounts
ADMISSION_MEMORY_MIN_BYTES: Final = 200 * 1024 * 1024  # available; with less, no new accounts
ADMISSION_DISK_MIN_BYTES: Final = 1024 * 1024 * 1024  # free; with less, no new accounts
BLOB_PART_MAX_BYTES: Final = 256 * 1024  # of one request or answer
BLOBS_MAX: Final = 40  # per account: three of each device, and some on their way
BLOBS_MAX_BYTES: Final = 256 * 1024 * 1024  # per account
BLOB_DAYS: Final = 180  # from the end of its upload
UPLOAD_VALID_H: Final = 24  # an upload that does not end is deleted
EXPIRE_BLOBS_PER_UPKEEP: Final = 4

# --- client ---
ARGON2_MEMORY_MAX_KIB: Final = 1024 * 1024  # what a vault's key file may ask for
ARGON2_PASSES_MAX: Final = 16
ARGON2_LANES_MAX: Final = 16
KEY_FILE_MAX_BYTES: Final = 4_096
PASSPHRASE_MAX_BYTES: Final = 1_024
RECONNECT_FIRST_MS: Final = 200  # doubling
RECONNECT_LAST_MS: Final = 30_000
OPEN_WAIT_S: Final = 10  # for the socket, and again for the relay's greeting
ANSWER_WAIT_S: Final = 60  # a relay that leaves a call unanswered for so long is hung up on
EVENTS_QUEUED_MAX: Final = 256  # between the socket and the driver; a full queue stops reading
EVENTS_PER_COMMIT_MAX: Final = 32  # deliveries that share one transaction
MEND_FIRST_S: Final = 0.05  # after a disk failed, until it is tried again; doubling
MEND_LAST_S: Final = 2.0
KEYRING_WAIT_S: Final = 2.0  # for the number of openings: one that asks somebody first is not waited for
HISTORY_MAX: Final = 100_000  # messages of one look at a conversation; an export has them all
TIDY_IDLE_S: Final = 5  # without work, until the vault's log is cut

# --- the daemon's socket (docs/using.md, "One vault, many programs") ---
RPC_REQUEST_MAX_BYTES: Final = 4 * 1024 * 1024  # one line: a batch of records to import, in base64
RPC_ANSWER_MAX_BYTES: Final = 64 * 1024 * 1024  # a long history of long messages
RPC_CONNECTIONS_MAX: Final = 128
RPC_PENDING_MAX: Final = 64  # of one connection: more are not read until one is answered
RPC_MISTAKES_MAX: Final = 16  # what is no request, of one connection; then it is closed
RPC_HAPPENINGS_MAX: Final = 4_096  # that wait for one connection to read them
RPC_HELLO_WAIT_S: Final = 5
RPC_ANSWER_WAIT_S: Final = 30  # how long who asks a question that needs no relay waits for the answer
RPC_WAIT_MAX_S: Final = DAY_S  # how long one request may wait for something to happen
RPC_MESSAGES_MAX: Final = 256  # in one answer
IMPORT_BATCH_BYTES: Final = 1024 * 1024

# --- handlers of messages (lokket on) ---
HANDLER_WAIT_S: Final = 60  # for a command to end, or a server to answer
HANDLER_TRIES_MAX: Final = 5
HANDLER_RETRY_FIRST_S: Final = 1  # doubling
HANDLER_RETRY_LAST_S: Final = 60
HANDLER_ANSWER_MAX_BYTES: Final = 64 * 1024  # of a server's answer that are read

# --- backups and exports (docs/backup.md) ---
STREAM_CHUNKS_MAX: Final = 1 << 24  # of 64 KiB: 1 TiB under one key, far below the cipher's own bound
BACKUP_HEADER_MAX_BYTES: Final = 4_096
BACKUP_RECORD_MAX_BYTES: Final = 1024 * 1024  # a contact whose account rotated 64 times
BACKUP_RECORDS_MAX: Final = 50_000_000
BACKUP_CONTACTS_MAX: Final = 100_000
BACKUP_MEMORY_KIB: Final = 256 * 1024  # Argon2id over a backup's passphrase
BACKUP_PASSES: Final = 3
BACKUP_LANES: Final = 4
BACKUP_MEMORY_MIN_KIB: Final = 64 * 1024  # an archive that asks for less is refused: a downgrade
BACKUPS_KEPT: Final = 3  # of one device: in the folder of automatic backups, or at the relay
BACKUP_EVERY_S: Final = DAY_S
BACKUP_FIRST_LOOK_S: Final = 5  # whether one is due, after the vault was opened for longer
BACKUP_LOOK_S: Final = 600
BACKUP_LATE_S: Final = 3 * DAY_S  # then 'lokket doctor' says so
IMPORT_BATCH: Final = 256  # records that share one transaction
EXPORT_LINE_MAX_BYTES: Final = 2 * 1024 * 1024

# --- groups (RFC 9420) ---
MLS_LEAVES_MAX: Final = 1 << 16  # room in a ratchet tree, blank leaves included
MLS_SKIP_AHEAD_MAX: Final = 1_000  # generations one message may advance a sender's ratchet
MLS_SKIPPED_KEYS_MAX: Final = 1_000  # kept of one ratchet, oldest dropped
MLS_PAST_EPOCHS: Final = 4  # whose late messages still open
MLS_PAST_EPOCH_S: Final = 3 * DAY_S  # and for how long at most
MLS_RESUMPTION_PSKS_MAX: Final = 256  # epochs of one group whose resumption secret is kept
MLS_PROPOSALS_MAX: Final = 2_048  # waiting for a commit, in one epoch
MLS_KEY_PACKAGE_DAYS: Final = 90
MLS_LIFETIME_MAX_DAYS: Final = 400  # of a key package that we add; others' libraries make ones of a year

# --- clocks ---
CLOCK_SKEW_S: Final = 300  # how far two honest clocks may disagree
CLOCK_LOOK_MAX_S: Final = 7_200  # between two steps of a connected device: more, or backwards, and it jumped

assert SKIP_AHEAD_MAX <= SKIPPED_KEYS_MAX
assert MLS_KEY_PACKAGE_DAYS < MLS_LIFETIME_MAX_DAYS
assert MLS_SKIP_AHEAD_MAX <= MLS_SKIPPED_KEYS_MAX
assert (
    PAIRWISE_MESSAGE_MAX_BYTES + CERTIFICATE_MAX_BYTES + 128 * SEALED_RECIPIENTS_MAX
    < SEALED_MESSAGE_MAX_BYTES
)
assert PREKEY_PRIVATE_DAYS >= MANIFEST_LIFETIME_DAYS + MAILBOX_TTL_DAYS + 1
assert FIRST_MESSAGE_MEMORY_DAYS >= PREKEY_PRIVATE_DAYS
assert SIGNED_PREKEY_ROTATE_DAYS < MANIFEST_LIFETIME_DAYS
assert LIST_RENEW_DAYS < LIST_VALID_DAYS
assert ARCHIVED_SESSION_DAYS <= OUTBOX_DAYS
assert CONTENT_MAX_BYTES < ENVELOPE_BODY_MAX_BYTES < FRAME_MAX_BYTES
assert ENVELOPE_BODY_MAX_BYTES <= PAIRWISE_MESSAGE_MAX_BYTES
assert TEXT_MAX_BYTES < CONTENT_MAX_BYTES
assert HISTORY_PAGE_BYTES < TEXT_MAX_BYTES < CONTENT_MAX_BYTES - 2_048  # one message fits a page always
assert KNOCK_MAX_BYTES < FRAME_BEFORE_LOGIN_MAX_BYTES
assert SEEN_DAYS > MAILBOX_TTL_DAYS
assert DEVICES_MAX <= DEVICE_NUMBER_MAX
assert DEVICE_NUMBER_REST_DAYS > PREKEY_PRIVATE_DAYS  # no mail to the old holder of a number is left
assert CONTENT_IDS_SMALL <= CONTENT_IDS_MAX
assert PREKEY_PAIRS_PER_MANIFEST > PAIRS_LOW
assert DISK_RESERVE_BYTES < ADMISSION_DISK_MIN_BYTES  # who is there is served longer than the new come
assert UPKEEP_S < CLOCK_STEP_MAX_S <= CLOCK_EVEN_S
assert ENVELOPE_BODY_MAX_BYTES < DELIVER_FRAME_MAX_BYTES < FRAME_MAX_BYTES
assert DELIVER_FRAME_MAX_BYTES <= DELIVER_UNACKNOWLEDGED_MAX_BYTES
assert FRAME_BEFORE_LOGIN_MAX_BYTES <= FRAME_MAX_BYTES
assert BLOB_PART_MAX_BYTES <= FRAME_MAX_BYTES // 2
assert DEVICES_MAX * (BACKUPS_KEPT + 1) <= BLOBS_MAX
assert BACKUP_EVERY_S <= UPLOAD_VALID_H * 3_600 < BACKUP_LATE_S < BLOB_DAYS * DAY_S
assert BACKUP_MEMORY_MIN_KIB <= BACKUP_MEMORY_KIB <= ARGON2_MEMORY_MAX_KIB
assert BACKUP_EVERY_S < BACKUP_LATE_S
assert BACKUP_PASSES <= ARGON2_PASSES_MAX
assert BACKUP_LANES <= ARGON2_LANES_MAX
assert STREAM_CHUNKS_MAX < 1 << 32
assert 2 * (IMPORT_BATCH_BYTES + BACKUP_RECORD_MAX_BYTES) <= RPC_REQUEST_MAX_BYTES < RPC_ANSWER_MAX_BYTES
assert TEXT_MAX_BYTES * 6 < RPC_REQUEST_MAX_BYTES  # a text in which JSON escapes every byte
assert RPC_MESSAGES_MAX * TEXT_MAX_BYTES < RPC_ANSWER_MAX_BYTES
assert TEXT_MAX_BYTES < BACKUP_RECORD_MAX_BYTES < EXPORT_LINE_MAX_BYTES
