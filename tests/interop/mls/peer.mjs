// JSON-lines-over-stdio MLS (RFC 9420) interop peer, driving the `ts-mls` npm package.
// One request object per stdin line -> exactly one response object per stdout line, in order.
// Request:  {"id":any, "cmd":"...", ...}   Response: {"id":same, "ok":true, ...} | {"id":same,"ok":false,"error":{"name","message"}}
// Every byte string is standard base64. The process keeps all private state in memory under string handles.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join, dirname } from "node:path";
import * as mls from "ts-mls";
import { defaultClientConfig } from "ts-mls/clientConfig.js";
import { encodeRatchetTree, decodeRatchetTree } from "ts-mls/ratchetTree.js";
import { makeKeyPackageRef } from "ts-mls/keyPackage.js";
import { encodeGroupContext } from "ts-mls/groupContext.js";
import { decodeGroupInfo, encodeGroupInfo } from "ts-mls/groupInfo.js";

const b64 = (u8) => Buffer.from(u8.buffer, u8.byteOffset, u8.byteLength).toString("base64");
const raw = (s, what) => {
  if (typeof s !== "string") throw new Error(`missing base64 field: ${what}`);
  return new Uint8Array(Buffer.from(s, "base64"));
};
const text = new TextEncoder();

const impls = new Map(); // suite name -> implementation
const keyPackages = new Map(); // handle -> {pub, priv, suite}
const groups = new Map(); // handle -> {state, suite, pending}
const externalPsks = {}; // base64(psk id) -> secret, shared by all groups
let serial = 0;
const fresh = (prefix) => `${prefix}${++serial}`;

// draft-ietf-mls-pq-ciphersuites has no IANA code points yet; `register` adds any suite under any id, with the
// DeriveKeyPair of draft-ietf-hpke-pq (SHAKE256 LabeledDerive), which ts-mls 1.6.4's KEM packages do not apply.
const pqKems = { "X-Wing": [0x647a, 32], "ML-KEM-512": [0x40, 64], "ML-KEM-768": [0x41, 64], "ML-KEM-1024": [0x42, 64] };
const u16 = (n) => Uint8Array.of(n >> 8, n & 255);
function labeledDerive(kemId, ikm, label, length) {
  const l = text.encode(label);
  const input = Buffer.concat([ikm, text.encode("HPKE-v1KEM"), u16(kemId), u16(l.length), l, u16(length)]);
  return createHash("shake256", { outputLength: length }).update(input).digest();
}
async function registerSuite({ id, name, kem, kdf, aead, hash, signature, derive }) {
  const impl = await mls.getCiphersuiteImpl({ name, hash, signature, hpke: { kem, kdf, aead } });
  if (kem in pqKems && derive !== "native") {
    const [kemId, seedLength] = pqKems[kem];
    const hpke = impl.hpke;
    const make = async (seed) => {
      const priv = await hpke.importPrivateKey(seed);
      let pub;
      if (kem === "X-Wing") {
        pub = (await new (await import("@hpke/hybridkem-x-wing")).XWing().generateKeyPairDerand(new Uint8Array(seed))).publicKey;
      } else {
        pub = (await hpke.deriveKeyPair(seed)).publicKey; // 64-byte input is taken as the (d, z) seed
      }
      return { privateKey: priv, publicKey: pub };
    };
    impl.hpke = { ...hpke, deriveKeyPair: (ikm) => make(new Uint8Array(labeledDerive(kemId, ikm, "DeriveKeyPair", seedLength))) };
  }
  for (const [old, oldId] of Object.entries(mls.ciphersuites)) if (oldId === id && old !== name) delete mls.ciphersuites[old];
  mls.ciphersuites[name] = id;
  impls.set(name, impl);
}

// ts-mls 1.6.4 takes the data of external_pub for the key itself; RFC 9420 section 12.4.3.2 has a struct with opaque<V>.
function wrapped(key) {
  if (key.length < 64) return Uint8Array.of(key.length, ...key);
  if (key.length < 16384) return Uint8Array.of(0x40 | (key.length >> 8), key.length & 255, ...key);
  throw new Error("a key is too long");
}
const unwrapped = (data) => data.slice(1 << (data[0] >> 6));
const exportsWrapped = (cs) => ({
  ...cs,
  hpke: { ...cs.hpke, exportPublicKey: async (key) => wrapped(await cs.hpke.exportPublicKey(key)) },
});
function importsWrapped(cs) {
  let first = true; // joinGroupExternal imports the external_pub before any other key
  const importPublicKey = async (data) => {
    const given = first ? unwrapped(data) : data;
    first = false;
    return cs.hpke.importPublicKey(given);
  };
  return { ...cs, hpke: { ...cs.hpke, importPublicKey } };
}

function suiteName(v) {
  if (v === undefined) return "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519";
  if (typeof v === "string") return v;
  const hit = Object.entries(mls.ciphersuites).find(([, id]) => id === v);
  if (!hit) throw new Error(`unknown ciphersuite ${v}`);
  return hit[0];
}
// ts-mls 1.6.4 makes compressed ECDSA public keys; RFC 9420 section 5.1.1 wants uncompressed points. It verifies with both.
const curves = { 2: "p256", 5: "p521", 7: "p384" };
async function uncompressed(impl, id) {
  if (!(id in curves)) return impl;
  const curve = (await import("@noble/curves/nist.js"))[curves[id]];
  const keygen = async () => {
    const { signKey, publicKey } = await impl.signature.keygen();
    return { signKey, publicKey: curve.Point.fromBytes(publicKey).toBytes(false) };
  };
  return { ...impl, signature: { ...impl.signature, keygen } };
}
async function suiteImpl(name) {
  if (!impls.has(name)) {
    const impl = await mls.getCiphersuiteImpl(mls.getCiphersuiteFromName(name));
    impls.set(name, await uncompressed(impl, mls.ciphersuites[name]));
  }
  return impls.get(name);
}
function pick(map, handle, kind) {
  const v = map.get(handle);
  if (!v) throw new Error(`no such ${kind}: ${handle}`);
  return v;
}
// Capabilities without GREASE unless asked: deterministic bytes make failures easy to read.
function capabilities(req, name) {
  if (req.grease) return mls.defaultCapabilities();
  return {
    versions: ["mls10"],
    ciphersuites: req.all_suites ? Object.keys(mls.ciphersuites) : [name],
    extensions: req.extensions ?? [],
    proposals: req.proposals ?? [],
    credentials: ["basic"],
  };
}
function clientConfig(req) {
  const c = { ...defaultClientConfig };
  if (req.padding !== undefined) c.paddingConfig = { kind: "padUntilLength", padUntilLength: req.padding };
  if (req.retain_epochs !== undefined)
    c.keyRetentionConfig = { ...c.keyRetentionConfig, retainKeysForEpochs: req.retain_epochs };
  return c;
}
function parse(bytes, ...kinds) {
  const out = mls.decodeMlsMessage(bytes, 0);
  if (!out) throw new Error("MLSMessage does not decode");
  const [msg, used] = out;
  if (used !== bytes.length) throw new Error(`${bytes.length - used} trailing bytes after MLSMessage`);
  if (kinds.length && !kinds.includes(msg.wireformat)) throw new Error(`expected ${kinds}, got ${msg.wireformat}`);
  return msg;
}
const pack = (wireformat, field, value) => b64(mls.encodeMlsMessage({ version: "mls10", wireformat, [field]: value }));
const psks = (g) => mls.makePskIndex(g?.state, externalPsks);

function roster(state) {
  const rows = [];
  for (let i = 0; i < state.ratchetTree.length; i += 2) {
    const node = state.ratchetTree[i];
    if (node?.nodeType !== "leaf") continue;
    const c = node.leaf.credential;
    rows.push({
      leaf: i / 2,
      identity: c.identity ? b64(c.identity) : null,
      signature_key: b64(node.leaf.signaturePublicKey),
    });
  }
  return rows;
}
function describe(g) {
  const s = g.state;
  return {
    epoch: Number(s.groupContext.epoch),
    group_id: b64(s.groupContext.groupId),
    suite: mls.ciphersuites[g.suite],
    my_leaf: s.privatePath.leafIndex,
    active: s.groupActiveState.kind,
    pending_proposals: Object.keys(s.unappliedProposals).length,
    tree_hash: b64(s.groupContext.treeHash),
    confirmed_transcript_hash: b64(s.groupContext.confirmedTranscriptHash),
    epoch_authenticator: b64(s.keySchedule.epochAuthenticator),
    members: roster(s),
  };
}
const brief = (g) => {
  const { epoch, epoch_authenticator } = describe(g);
  return { epoch, epoch_authenticator };
};
function install(handle, g, state, consumed) {
  g.state = state;
  (consumed ?? []).forEach(mls.zeroOutUint8Array);
  groups.set(handle, g);
}
// Proposals in requests: {type:"add",key_package} {type:"remove",leaf} {type:"psk",psk_id} {type:"extensions",extensions:[{type,data}]}
async function proposal(p, cs) {
  if (p.type === "add")
    return { proposalType: "add", add: { keyPackage: parse(raw(p.key_package, "key_package"), "mls_key_package").keyPackage } };
  if (p.type === "remove") return { proposalType: "remove", remove: { removed: p.leaf } };
  if (p.type === "psk")
    return {
      proposalType: "psk",
      psk: { preSharedKeyId: { psktype: "external", pskId: raw(p.psk_id, "psk_id"), pskNonce: cs.rng.randomBytes(cs.kdf.size) } },
    };
  if (p.type === "extensions")
    return {
      proposalType: "group_context_extensions",
      groupContextExtensions: { extensions: p.extensions.map((e) => ({ extensionType: e.type, extensionData: raw(e.data, "data") })) },
    };
  throw new Error(`unknown proposal type ${p.type}`);
}
// Shared by add/remove/update/commit. With "defer":true the new state waits for `merge` (or `discard`), as a
// delivery service may still refuse the commit; otherwise it is installed at once.
async function commit(req, proposals) {
  const g = pick(groups, req.group, "group");
  const cs = await suiteImpl(g.suite);
  const r = await mls.createCommit(
    { state: g.state, cipherSuite: cs, pskIndex: psks(g) },
    {
      extraProposals: await Promise.all(proposals.map((p) => proposal(p, cs))),
      wireAsPublicMessage: req.public ?? false,
      ratchetTreeExtension: req.tree_in_welcome ?? true,
      authenticatedData: req.aad === undefined ? undefined : raw(req.aad, "aad"),
    },
  );
  const out = { commit: b64(mls.encodeMlsMessage(r.commit)) };
  if (r.welcome) out.welcome = pack("mls_welcome", "welcome", r.welcome);
  if (req.defer) {
    g.pending = r;
    return { ...out, ...brief(g), deferred: true, next_epoch: Number(r.newState.groupContext.epoch) };
  }
  install(req.group, g, r.newState, r.consumed);
  if (!(req.tree_in_welcome ?? true)) out.ratchet_tree = b64(encodeRatchetTree(g.state.ratchetTree));
  return { ...out, ...brief(g) };
}

const commands = {
  async info() {
    const here = createRequire(import.meta.url).resolve("ts-mls");
    const pkg = JSON.parse(readFileSync(join(dirname(here), "../../package.json"), "utf8"));
    return { peer: "ts-mls", version: pkg.version, node: process.version, ciphersuites: mls.ciphersuites };
  },
  async register(req) {
    await registerSuite(req.suite);
    return { ciphersuites: mls.ciphersuites };
  },
  async key_package(req) {
    const name = suiteName(req.suite);
    const cs = await suiteImpl(name);
    const now = BigInt(Math.floor(Date.now() / 1000));
    const life = { notBefore: now - 3600n, notAfter: now + BigInt(req.lifetime ?? 86400 * 28) };
    const cred = { credentialType: "basic", identity: req.identity ? raw(req.identity, "identity") : text.encode(req.name ?? "peer") };
    const { publicPackage, privatePackage } = await mls.generateKeyPackage(cred, capabilities(req, name), life, [], cs);
    const handle = req.as ?? fresh("kp");
    keyPackages.set(handle, { pub: publicPackage, priv: privatePackage, suite: name });
    const out = {
      key_package_handle: handle,
      key_package: pack("mls_key_package", "keyPackage", publicPackage),
      ref: b64(await makeKeyPackageRef(publicPackage, cs.hash)),
      signature_key: b64(publicPackage.leafNode.signaturePublicKey),
    };
    if (req.reveal)
      out.private = { init: b64(privatePackage.initPrivateKey), encryption: b64(privatePackage.hpkePrivateKey), signature: b64(privatePackage.signaturePrivateKey) };
    return out;
  },
  async create(req) {
    let kp = req.key_package_handle;
    if (!kp) kp = (await commands.key_package(req)).key_package_handle;
    const k = pick(keyPackages, kp, "key package");
    const cs = await suiteImpl(k.suite);
    const id = req.group_id ? raw(req.group_id, "group_id") : cs.rng.randomBytes(16);
    const ext = (req.group_extensions ?? []).map((e) => ({ extensionType: e.type, extensionData: raw(e.data, "data") }));
    const state = await mls.createGroup(id, k.pub, k.priv, ext, cs, clientConfig(req));
    const handle = req.as_group ?? fresh("g");
    const g = { suite: k.suite };
    install(handle, g, state);
    return { group: handle, ...describe(g) };
  },
  add: (req) =>
    commit(req, [].concat(req.key_packages ?? req.key_package ?? []).map((key_package) => ({ type: "add", key_package }))),
  remove: (req) => commit(req, [].concat(req.leaves ?? req.leaf).map((leaf) => ({ type: "remove", leaf }))),
  update: (req) => commit(req, []),
  commit: (req) => commit(req, req.proposals ?? []),
  async merge(req) {
    const g = pick(groups, req.group, "group");
    if (!g.pending) throw new Error("no deferred commit");
    install(req.group, g, g.pending.newState, g.pending.consumed);
    g.pending = undefined;
    return brief(g);
  },
  async discard(req) {
    const g = pick(groups, req.group, "group");
    const had = Boolean(g.pending);
    g.pending = undefined;
    return { discarded: had, ...brief(g) };
  },
  async propose(req) {
    const g = pick(groups, req.group, "group");
    const cs = await suiteImpl(g.suite);
    const r = await mls.createProposal(g.state, req.public ?? false, await proposal(req.proposal, cs), cs);
    install(req.group, g, r.newState, r.consumed);
    return { message: b64(mls.encodeMlsMessage(r.message)), ...brief(g) };
  },
  async join(req) {
    const k = pick(keyPackages, req.key_package_handle, "key package");
    const cs = await suiteImpl(k.suite);
    const { welcome } = parse(raw(req.welcome, "welcome"), "mls_welcome");
    const tree = req.ratchet_tree ? decodeRatchetTree(raw(req.ratchet_tree, "ratchet_tree"), 0)[0] : undefined;
    const state = await mls.joinGroup(welcome, k.pub, k.priv, psks(), cs, tree, undefined, clientConfig(req));
    const handle = req.as_group ?? fresh("g");
    const g = { suite: k.suite };
    install(handle, g, state);
    if (!req.keep) keyPackages.delete(req.key_package_handle);
    return { group: handle, ...describe(g) };
  },
  async group_info(req) {
    const g = pick(groups, req.group, "group");
    const cs = await suiteImpl(g.suite);
    const make = (req.tree ?? true) ? mls.createGroupInfoWithExternalPubAndRatchetTree : mls.createGroupInfoWithExternalPub;
    return { group_info: pack("mls_group_info", "groupInfo", await make(g.state, [], exportsWrapped(cs))) };
  },
  async join_external(req) {
    const k = pick(keyPackages, req.key_package_handle, "key package");
    const cs = await suiteImpl(k.suite);
    const { groupInfo } = parse(raw(req.group_info, "group_info"), "mls_group_info");
    const tree = req.ratchet_tree ? decodeRatchetTree(raw(req.ratchet_tree, "ratchet_tree"), 0)[0] : undefined;
    const r = await mls.joinGroupExternal(groupInfo, k.pub, k.priv, req.resync ?? false, importsWrapped(cs), tree, clientConfig(req));
    const handle = req.as_group ?? fresh("g");
    const g = { suite: k.suite };
    install(handle, g, r.newState);
    return { group: handle, commit: pack("mls_public_message", "publicMessage", r.publicMessage), ...describe(g) };
  },
  async process(req) {
    const g = pick(groups, req.group, "group");
    const cs = await suiteImpl(g.suite);
    const msg = parse(raw(req.message, "message"), "mls_public_message", "mls_private_message");
    let seen = null;
    const watch = (m) => {
      const one = (p) => ({ type: p.proposal.proposalType, sender: p.senderLeafIndex ?? null });
      seen = m.kind === "commit" ? { kind: "commit", committer: m.senderLeafIndex ?? null, proposals: m.proposals.map(one) } : { kind: "proposal", ...one(m.proposal) };
      return req.reject ? "reject" : "accept";
    };
    const r =
      msg.wireformat === "mls_private_message"
        ? await mls.processPrivateMessage(g.state, msg.privateMessage, psks(g), cs, watch)
        : await mls.processPublicMessage(g.state, msg.publicMessage, psks(g), cs, watch);
    install(req.group, g, r.newState, r.consumed);
    g.pending = seen?.kind === "commit" ? undefined : g.pending;
    if (r.kind === "applicationMessage") return { kind: "application", plaintext: b64(r.message), ...brief(g) };
    return { kind: seen?.kind ?? "unknown", detail: seen, action: r.actionTaken, ...brief(g), active: g.state.groupActiveState.kind };
  },
  async encrypt(req) {
    const g = pick(groups, req.group, "group");
    const cs = await suiteImpl(g.suite);
    const body = req.plaintext !== undefined ? raw(req.plaintext, "plaintext") : text.encode(req.text ?? "");
    const r = await mls.createApplicationMessage(g.state, body, cs, req.aad === undefined ? undefined : raw(req.aad, "aad"));
    install(req.group, g, r.newState, r.consumed);
    return { message: pack("mls_private_message", "privateMessage", r.privateMessage), ...brief(g) };
  },
  async export(req) {
    const g = pick(groups, req.group, "group");
    const cs = await suiteImpl(g.suite);
    const secret = await mls.mlsExporter(g.state.keySchedule.exporterSecret, req.label, raw(req.context ?? "", "context"), req.length ?? 32, cs);
    return { secret: b64(secret), ...brief(g) };
  },
  async psk(req) {
    externalPsks[mls.bytesToBase64(raw(req.psk_id, "psk_id"))] = raw(req.psk, "psk");
    return {};
  },
  async state(req) {
    return describe(pick(groups, req.group, "group"));
  },
  async tree(req) {
    const s = pick(groups, req.group, "group").state;
    return { ratchet_tree: b64(encodeRatchetTree(s.ratchetTree)), group_context: b64(encodeGroupContext(s.groupContext)) };
  },
  async secrets(req) {
    const ks = pick(groups, req.group, "group").state.keySchedule;
    return Object.fromEntries(Object.entries(ks).map(([k, v]) => [k, b64(v)]));
  },
  async save(req) {
    const g = pick(groups, req.group, "group");
    return { blob: b64(mls.encodeGroupState(g.state)), suite: mls.ciphersuites[g.suite] };
  },
  async load(req) {
    const out = mls.decodeGroupState(raw(req.blob, "blob"), 0);
    if (!out) throw new Error("state does not decode");
    const handle = req.as_group ?? fresh("g");
    const g = { suite: suiteName(req.suite) };
    install(handle, g, { ...out[0], clientConfig: clientConfig(req) });
    return { group: handle, ...describe(g) };
  },
  async reencode(req) {
    return { message: b64(mls.encodeMlsMessage(parse(raw(req.message, "message")))), wireformat: parse(raw(req.message, "message")).wireformat };
  },
  async clone(req) {
    const g = pick(groups, req.group, "group");
    const [state] = mls.decodeGroupState(mls.encodeGroupState(g.state), 0);
    const handle = req.as_group ?? fresh("g");
    install(handle, { suite: g.suite }, { ...state, clientConfig: g.state.clientConfig });
    return { group: handle };
  },
  async forget(req) {
    return { forgot: groups.delete(req.group) };
  },
};

const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
for await (const line of lines) {
  if (!line.trim()) continue;
  let req = {};
  let res;
  try {
    req = JSON.parse(line);
    if (req.cmd === "quit") break;
    const fn = Object.hasOwn(commands, req.cmd) ? commands[req.cmd] : undefined;
    if (!fn) throw new Error(`unknown cmd ${req.cmd}`);
    const t0 = performance.now();
    const out = await fn(req);
    res = { id: req.id ?? null, ok: true, ms: Math.round((performance.now() - t0) * 1000) / 1000, ...out };
  } catch (e) {
    res = { id: req?.id ?? null, ok: false, error: { name: e?.name ?? "Error", message: String(e?.message ?? e) } };
  }
  process.stdout.write(JSON.stringify(res) + "\n");
}
process.exit(0);
