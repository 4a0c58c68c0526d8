/* What the primitives cost in C over libcrypto's EVP layer: the floor under any figure of the table.
   Names and units are those of primitives.py. Needs OpenSSL 3.5 or newer, for ML-KEM:
   gcc -O2 floor.c -lcrypto -o floor */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if OPENSSL_VERSION_NUMBER < 0x30500000L && !defined(WITHOUT_ML_KEM)
#error "OpenSSL 3.5 or newer is needed"
#endif

#define TEXT 112 /* 100 bytes, padded */
#define BODY 264 /* two identities and a message, under its MAC */
#define ROUNDS 9

static unsigned char key[32], iv[16], data[2048], out[2048], signature[64], raw[32];
static EVP_MD *sha;
static EVP_MD_CTX *digest;
static EVP_CIPHER *cbc;
static EVP_CIPHER_CTX *cipher;
static EVP_PKEY *own, *peer, *signing;
static EVP_PKEY_CTX *generator;

struct kem {
  EVP_PKEY *pair;
  EVP_PKEY_CTX *generator, *encapsulator, *decapsulator;
  unsigned char ciphertext[2048], secret[32];
  size_t ciphertext_size;
};
static struct kem kem768, kem1024;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e9 + time.tv_nsec;
}

static void hmac_half(unsigned char pad, const unsigned char *message, size_t size, unsigned char *result) {
  unsigned char block[64];
  for (int i = 0; i < 64; i++) block[i] = (i < 32 ? key[i] : 0) ^ pad;
  EVP_DigestInit_ex2(digest, sha, NULL);
  EVP_DigestUpdate(digest, block, sizeof block);
  EVP_DigestUpdate(digest, message, size);
  EVP_DigestFinal_ex(digest, result, NULL);
}

static void hmac(size_t size) {
  unsigned char inner[32];
  hmac_half(0x36, data, size, inner);
  hmac_half(0x5c, inner, sizeof inner, out);
}

static void hmac_short(void) { hmac(32); }

static void hmac_body(void) { hmac(BODY); }

static void aes_cbc(void) {
  int size;
  EVP_EncryptInit_ex2(cipher, cbc, key, iv, NULL);
  EVP_EncryptUpdate(cipher, out, &size, data, TEXT);
}

static void x25519_load(void) { EVP_PKEY_free(EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, raw, 32)); }

static void x25519_exchange(void) {
  size_t size = 32;
  EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
  EVP_PKEY_derive_init(context);
  EVP_PKEY_derive_set_peer_ex(context, peer, 0);
  EVP_PKEY_derive(context, out, &size);
  EVP_PKEY_CTX_free(context);
}

static void ed25519_verify(void) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  EVP_DigestVerifyInit(context, NULL, NULL, NULL, signing);
  if (EVP_DigestVerify(context, signature, sizeof signature, data, 33) != 1) abort();
  EVP_MD_CTX_free(context);
}

static void generate(struct kem *kem) {
  EVP_PKEY *pair = NULL;
  EVP_PKEY_keygen(kem->generator, &pair);
  EVP_PKEY_free(pair);
}

static void encapsulate(struct kem *kem) {
  size_t size = sizeof kem->secret;
  kem->ciphertext_size = sizeof kem->ciphertext;
  EVP_PKEY_encapsulate(kem->encapsulator, kem->ciphertext, &kem->ciphertext_size, kem->secret, &size);
}

static void decapsulate(struct kem *kem) {
  size_t size = sizeof kem->secret;
  EVP_PKEY_decapsulate(kem->decapsulator, kem->secret, &size, kem->ciphertext, kem->ciphertext_size);
}

static void generate_768(void) { generate(&kem768); }
static void encapsulate_768(void) { encapsulate(&kem768); }
static void decapsulate_768(void) { decapsulate(&kem768); }
static void encapsulate_1024(void) { encapsulate(&kem1024); }
static void decapsulate_1024(void) { decapsulate(&kem1024); }

static void prepare_kem(struct kem *kem, const char *name) {
  kem->generator = EVP_PKEY_CTX_new_from_name(NULL, name, NULL);
  if (!kem->generator) return;
  EVP_PKEY_keygen_init(kem->generator);
  EVP_PKEY_keygen(kem->generator, &kem->pair);
  kem->encapsulator = EVP_PKEY_CTX_new_from_pkey(NULL, kem->pair, NULL);
  EVP_PKEY_encapsulate_init(kem->encapsulator, NULL);
  encapsulate(kem);
  kem->decapsulator = EVP_PKEY_CTX_new_from_pkey(NULL, kem->pair, NULL);
  EVP_PKEY_decapsulate_init(kem->decapsulator, NULL);
}

static void prepare(void) {
  size_t size = sizeof raw;
  RAND_bytes(key, sizeof key);
  RAND_bytes(data, sizeof data);
  sha = EVP_MD_fetch(NULL, "SHA256", NULL);
  digest = EVP_MD_CTX_new();
  cbc = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
  cipher = EVP_CIPHER_CTX_new();
  generator = EVP_PKEY_CTX_new_from_name(NULL, "X25519", NULL);
  EVP_PKEY_keygen_init(generator);
  EVP_PKEY_keygen(generator, &own);
  EVP_PKEY_keygen(generator, &peer);
  EVP_PKEY_get_raw_private_key(own, raw, &size);
  signing = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  size = sizeof signature;
  EVP_DigestSignInit(context, NULL, NULL, NULL, signing);
  EVP_DigestSign(context, signature, &size, data, 33);
  EVP_MD_CTX_free(context);
  prepare_kem(&kem768, "ML-KEM-768");
  prepare_kem(&kem1024, "ML-KEM-1024");
}

static int compare(const void *left, const void *right) {
  double difference = *(const double *)left - *(const double *)right;
  return (difference > 0) - (difference < 0);
}

static double median(void (*operation)(void)) {
  double samples[ROUNDS], start = now();
  operation();
  long count = 5e6 / (now() - start + 50);
  count = count < 4 ? 4 : count > 20000 ? 20000 : count;
  for (int round = 0; round < ROUNDS; round++) {
    start = now();
    for (long i = 0; i < count; i++) operation();
    samples[round] = (now() - start) / count;
  }
  qsort(samples, ROUNDS, sizeof *samples, compare);
  return samples[ROUNDS / 2];
}

int main(void) {
  const struct {
    const char *name;
    void (*operation)(void);
  } operations[] = {
      {"hmac", hmac_short},
      {"hmac_body", hmac_body},
      {"aes_cbc", aes_cbc},
      {"x25519_load", x25519_load},
      {"x25519_exchange", x25519_exchange},
      {"ed25519_verify", ed25519_verify},
      {"mlkem768_generate", generate_768},
      {"mlkem768_encapsulate", encapsulate_768},
      {"mlkem768_decapsulate", decapsulate_768},
      {"mlkem1024_encapsulate", encapsulate_1024},
      {"mlkem1024_decapsulate", decapsulate_1024},
  };
  int count = sizeof operations / sizeof *operations;
  prepare();
  if (!kem768.pair || !kem1024.pair) count -= 5;
  printf("{\"library\": \"%s\", \"results\": {", OpenSSL_version(OPENSSL_VERSION_STRING));
  for (int i = 0; i < count; i++)
    printf("%s\"%s\": %.1f", i ? ", " : "", operations[i].name, median(operations[i].operation));
  printf("}}\n");
  return 0;
}
