// libsignal-client through its public API, with asynchronous stores in memory, on the workloads of bench/README.md.
// LIBSIGNAL_DIR names the folder that has node_modules/@signalapp/libsignal-client.

import { randomBytes, randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const MISSING = 3;
const base = path.resolve(process.env.LIBSIGNAL_DIR ?? '.', 'node_modules/@signalapp/libsignal-client');
const signal = await import(pathToFileURL(path.join(base, 'dist/index.js'))).catch((error) => {
  console.error(`libsignal-client is not installed (make interop): ${error.code}`);
  process.exit(MISSING);
});
const { version } = createRequire(import.meta.url)(path.join(base, 'package.json'));
const CHAIN = Number(process.env.BENCH_CHAIN ?? 1000);
const MEMBERS = Number(process.env.BENCH_MEMBERS ?? 300);
const SETUPS = Math.max(2, Math.floor(CHAIN / 10));
const text = new Uint8Array(randomBytes(100));

// A store keeps live objects, or with `stored` their serialised bytes.
class Kept {
  constructor(stored, kind) {
    this.map = new Map();
    this.stored = stored;
    this.kind = kind;
  }

  put(key, value) {
    this.map.set(key, this.stored ? value.serialize() : value);
  }

  get(key) {
    const value = this.map.get(key);
    if (value === undefined) return null;
    return this.stored ? this.kind.deserialize(value) : value;
  }
}

class Sessions extends signal.SessionStore {
  constructor(stored) {
    super();
    this.kept = new Kept(stored, signal.SessionRecord);
  }

  async saveSession(address, record) {
    this.kept.put(address.toString(), record);
  }

  async getSession(address) {
    return this.kept.get(address.toString());
  }

  async getExistingSessions(addresses) {
    return Promise.all(addresses.map((address) => this.getSession(address)));
  }
}

class Identities extends signal.IdentityKeyStore {
  constructor() {
    super();
    this.key = signal.PrivateKey.generate();
    this.registrationId = 1 + Math.floor(Math.random() * 16000);
    this.map = new Map();
  }

  async getIdentityKey() {
    return this.key;
  }

  async getLocalRegistrationId() {
    return this.registrationId;
  }

  async saveIdentity(address, key) {
    const before = this.map.get(address.toString());
    this.map.set(address.toString(), key);
    return before && !before.equals(key) ? 1 : 0;
  }

  async isTrustedIdentity() {
    return true;
  }

  async getIdentity(address) {
    return this.map.get(address.toString()) ?? null;
  }
}

class OneTimePrekeys extends signal.PreKeyStore {
  constructor(stored) {
    super();
    this.kept = new Kept(stored, signal.PreKeyRecord);
  }

  async savePreKey(id, record) {
    this.kept.put(id, record);
  }

  async getPreKey(id) {
    return this.kept.get(id);
  }

  async removePreKey(id) {
    this.kept.map.delete(id);
  }
}

class SignedPrekeys extends signal.SignedPreKeyStore {
  constructor(stored) {
    super();
    this.kept = new Kept(stored, signal.SignedPreKeyRecord);
  }

  async saveSignedPreKey(id, record) {
    this.kept.put(id, record);
  }

  async getSignedPreKey(id) {
    return this.kept.get(id);
  }
}

class KemPrekeys extends signal.KyberPreKeyStore {
  constructor(stored) {
    super();
    this.kept = new Kept(stored, signal.KyberPreKeyRecord);
  }

  async saveKyberPreKey(id, record) {
    this.kept.put(id, record);
  }

  async getKyberPreKey(id) {
    return this.kept.get(id);
  }

  async markKyberPreKeyUsed() {}
}

class SenderKeys extends signal.SenderKeyStore {
  constructor(stored) {
    super();
    this.kept = new Kept(stored, signal.SenderKeyRecord);
  }

  async saveSenderKey(address, distribution, record) {
    this.kept.put(address.toString() + distribution, record);
  }

  async getSenderKey(address, distribution) {
    return this.kept.get(address.toString() + distribution);
  }
}

class Party {
  constructor(stored = false) {
    this.address = signal.ProtocolAddress.new(randomUUID(), 1);
    this.identities = new Identities();
    this.sessions = new Sessions(stored);
    this.oneTime = new OneTimePrekeys(stored);
    this.signed = new SignedPrekeys(stored);
    this.kem = new KemPrekeys(stored);
    this.senderKeys = new SenderKeys(stored);
  }

  // All keys fresh, as the bytes that a server hands out: a one-time prekey, a signed one and a KEM prekey.
  async bundle() {
    const id = 1;
    const now = Date.now();
    const { key: identity, registrationId } = this.identities;
    const [oneTime, signed] = [signal.PrivateKey.generate(), signal.PrivateKey.generate()];
    const kem = signal.KEMKeyPair.generate();
    const [oneTimePublic, signedPublic, kemPublic] = [oneTime.getPublicKey(), signed.getPublicKey(), kem.getPublicKey()];
    const [signedBytes, kemBytes] = [signedPublic.serialize(), kemPublic.serialize()];
    const [signedSignature, kemSignature] = [identity.sign(signedBytes), identity.sign(kemBytes)];
    await this.oneTime.savePreKey(id, signal.PreKeyRecord.new(id, oneTimePublic, oneTime));
    await this.signed.saveSignedPreKey(
      id, signal.SignedPreKeyRecord.new(id, now, signedPublic, signed, signedSignature));
    await this.kem.saveKyberPreKey(id, signal.KyberPreKeyRecord.new(id, now, kem, kemSignature));
    return {
      registrationId, id, signedBytes, signedSignature, kemBytes, kemSignature,
      oneTimeBytes: oneTimePublic.serialize(), identityBytes: identity.getPublicKey().serialize(),
    };
  }

  begin(fetched, peer) {
    const { registrationId, id } = fetched;
    const key = (bytes) => signal.PublicKey.deserialize(bytes);
    const bundle = signal.PreKeyBundle.new(
      registrationId, 1, id, key(fetched.oneTimeBytes), id, key(fetched.signedBytes), fetched.signedSignature,
      key(fetched.identityBytes), id, signal.KEMPublicKey.deserialize(fetched.kemBytes), fetched.kemSignature);
    return signal.processPreKeyBundle(bundle, peer.address, this.address, this.sessions, this.identities);
  }

  async encrypt(peer) {
    const made = await signal.signalEncrypt(text, peer.address, this.address, this.sessions, this.identities);
    return [made.type(), made.serialize()];
  }

  decrypt(peer, [type, bytes]) {
    const { sessions, identities, oneTime, signed, kem } = this;
    if (type === signal.CiphertextMessageType.PreKey) {
      const message = signal.PreKeySignalMessage.deserialize(bytes);
      return signal.signalDecryptPreKey(
        message, peer.address, this.address, sessions, identities, oneTime, signed, kem);
    }
    const message = signal.SignalMessage.deserialize(bytes);
    return signal.signalDecrypt(message, peer.address, this.address, sessions, identities);
  }
}

const clock = () => process.hrtime.bigint();

class Workloads {
  results = {};
  facts = {};

  // Nanoseconds since `start` per operation.
  note(name, start, operations) {
    this.add(name, clock() - start, operations);
  }

  add(name, total, operations) {
    this.results[name] = Math.round((10 * Number(total)) / operations) / 10;
  }
}

const PAYLOADS = ['None', 'Hdr', 'Ek', 'EkCt1Ack', 'Ct1Ack', 'Ct1', 'Ct2'];

function varint(bytes, position) {
  let value = 0;
  let shift = 0;
  for (;;) {
    const byte = bytes[position++];
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return [value, position];
    shift += 7;
  }
}

// Where the Braid stands, from field 5 of a whisper message: 01, epoch, index, payload.
function braidOf(message) {
  let position = 1;
  while (position < message.length - 8) {
    let tag, value, epoch;
    [tag, position] = varint(message, position);
    [value, position] = varint(message, position);
    if (tag >> 3 === 5) {
      [epoch, position] = varint(message, position + 1);
      [, position] = varint(message, position);
      return `epoch ${epoch}, ${PAYLOADS[message[position]]}`;
    }
    if ((tag & 7) === 2) position += value;
  }
  return 'none';
}

// Two parties after one message each way: the Braid is at the header of the first key.
async function pair(stored) {
  const first = new Party(stored);
  const second = new Party(stored);
  await first.begin(await second.bundle(), second);
  await second.decrypt(first, await first.encrypt(second));
  await first.decrypt(second, await second.encrypt(first));
  return [first, second];
}

async function oneway(timed, stored, suffix, count) {
  const [sender, receiver] = await pair(stored);
  const sent = [];
  let start = clock();
  for (let i = 0; i < count; i++) sent.push(await sender.encrypt(receiver));
  timed.note('oneway_encrypt' + suffix, start, count);
  start = clock();
  for (const ciphertext of sent) await receiver.decrypt(sender, ciphertext);
  timed.note('oneway_decrypt' + suffix, start, count);
  timed.facts.wire_bytes_oneway = sent[count - 1][1].length;
  timed.facts.braid_oneway = braidOf(sent[count - 1][1]);
}

async function pingpong(timed, stored, suffix, count) {
  let [sender, receiver] = await pair(stored);
  for (let i = 0; i < 100; i++) {
    await receiver.decrypt(sender, await sender.encrypt(receiver));
    [sender, receiver] = [receiver, sender];
  }
  let encrypting = 0n;
  let decrypting = 0n;
  const begun = clock();
  for (let i = 0; i < count; i++) {
    const start = clock();
    const ciphertext = await sender.encrypt(receiver);
    const middle = clock();
    await receiver.decrypt(sender, ciphertext);
    decrypting += clock() - middle;
    encrypting += middle - start;
    [sender, receiver] = [receiver, sender];
    if (i === count - 1) timed.facts.braid_pingpong = braidOf(ciphertext[1]);
  }
  timed.note('pingpong_message' + suffix, begun, count);
  timed.add('pingpong_encrypt' + suffix, encrypting, count);
  timed.add('pingpong_decrypt' + suffix, decrypting, count);
}

async function reversedBlocks(timed, count, block) {
  const [sender, receiver] = await pair(false);
  const blocks = Math.max(1, Math.floor(count / block));
  let total = 0n;
  for (let k = 0; k < blocks; k++) {
    const sent = [];
    for (let i = 0; i < block; i++) sent.push(await sender.encrypt(receiver));
    sent.reverse();
    const start = clock();
    for (const ciphertext of sent) await receiver.decrypt(sender, ciphertext);
    total += clock() - start;
    timed.facts[`braid_ooo${block}`] = braidOf(sent[0][1]);
  }
  timed.add(`ooo${block}_decrypt`, total, blocks * block);
}

async function setup(timed, stored, count) {
  const initiators = [];
  const responders = [];
  for (let i = 0; i < count; i++) {
    initiators.push(new Party(stored));
    responders.push(new Party(stored));
  }
  const bundles = [];
  const sent = [];
  let start = clock();
  for (const party of responders) bundles.push(await party.bundle());
  if (!stored) timed.note('setup_bundle', start, count);
  start = clock();
  for (let i = 0; i < count; i++) {
    await initiators[i].begin(bundles[i], responders[i]);
    sent.push(await initiators[i].encrypt(responders[i]));
  }
  timed.note(stored ? 'setup_initiate_persist' : 'setup_initiate', start, count);
  start = clock();
  for (let i = 0; i < count; i++) await responders[i].decrypt(initiators[i], sent[i]);
  timed.note(stored ? 'setup_accept_persist' : 'setup_accept', start, count);
}

async function group(timed, stored, suffix, count) {
  const sender = new Party(stored);
  const receiver = new Party(stored);
  const id = randomUUID();
  const shared = await signal.SenderKeyDistributionMessage.create(sender.address, id, sender.senderKeys);
  await signal.processSenderKeyDistributionMessage(
    sender.address, signal.SenderKeyDistributionMessage.deserialize(shared.serialize()), receiver.senderKeys);
  const sent = [];
  let start = clock();
  for (let i = 0; i < count; i++) {
    sent.push((await signal.groupEncrypt(sender.address, id, sender.senderKeys, text)).serialize());
  }
  timed.note('group_encrypt' + suffix, start, count);
  start = clock();
  for (const ciphertext of sent) await signal.groupDecrypt(sender.address, receiver.senderKeys, ciphertext);
  timed.note('group_decrypt' + suffix, start, count);
}

async function fanout(timed, stored, suffix, count) {
  const sender = new Party(stored);
  const receivers = [];
  for (let i = 0; i < count; i++) {
    const receiver = new Party();
    await sender.begin(await receiver.bundle(), receiver);
    await receiver.decrypt(sender, await sender.encrypt(receiver));
    await sender.decrypt(receiver, await receiver.encrypt(sender));
    await sender.encrypt(receiver); // the DH step of the first message is not the fan-out's
    receivers.push(receiver);
  }
  const start = clock();
  for (const receiver of receivers) await sender.encrypt(receiver);
  timed.note('fanout_pairwise_per_member' + suffix, start, count);
}

async function everything(timed, count, setups) {
  for (const [stored, suffix] of [[false, ''], [true, '_persist']]) {
    await oneway(timed, stored, suffix, count);
    await pingpong(timed, stored, suffix, count);
    await setup(timed, stored, setups);
    await group(timed, stored, suffix, count);
  }
  await reversedBlocks(timed, count, 100);
  await reversedBlocks(timed, count, 40);
}

await everything(new Workloads(), Math.max(2, Math.floor(CHAIN / 10)), Math.max(2, Math.floor(SETUPS / 2)));
const workloads = new Workloads();
await everything(workloads, CHAIN, SETUPS);
if (MEMBERS) {
  await fanout(workloads, false, '', MEMBERS);
  await fanout(workloads, true, '_persist', MEMBERS);
}
const { results, facts } = workloads;
const versions = { 'libsignal-client': version };
console.log(JSON.stringify({ driver: 'libsignal', runtime: `node ${process.versions.node}`, versions, results, facts }));
