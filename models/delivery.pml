/* Delivery: from a message that was accepted into A's vault to B's receipt, under crashes and a restored relay.
 *
 * A writes; the relay stores; B shows, acknowledges, receipts. The vaults and the relay's disk keep what was
 * committed; connections, and frames on their way, go with any crash. Each TRACE line is one event, which
 * tests/models/test_delivery.py repeats with the real engines and the real relay.
 *
 * Holds: nothing is shown twice; once faults end, everything was shown and everything is receipted.
 * Bites: -DFORGET_SENT  A's row ends with the relay's word: a relay restored from a backup loses the message.
 *        -DACK_FIRST    B acknowledges what it has not committed.
 *        -DNO_SEEN      B does not remember what it has shown.
 */

#ifndef MESSAGES
#define MESSAGES 2  /* 1 to 3 */
#endif
#ifndef FAULTS
#define FAULTS 2
#endif

#if MESSAGES == 1
#define ANY(array) (array[0])
#define EACH(action) d_step { i = 0; action; i = 0 }
#define DIGITS(array) array[0], 0, 0
#elif MESSAGES == 2
#define ANY(array) (array[0] || array[1])
#define EACH(action) d_step { i = 0; action; i = 1; action; i = 0 }
#define DIGITS(array) array[0], array[1], 0
#else
#define ANY(array) (array[0] || array[1] || array[2])
#define EACH(action) d_step { i = 0; action; i = 1; action; i = 2; action; i = 0 }
#define DIGITS(array) array[0], array[1], array[2]
#endif

#define QUEUED 1
#define AWAITING 2
#define DONE 3

/* On disks. */
byte row[MESSAGES];          /* A's outbox; 0: not written yet */
bool seen[MESSAGES];         /* B's vault */
bool owed[MESSAGES];         /* B's vault: a receipt is due */
bool receipted[MESSAGES];    /* B's vault: a receipt was sent */
bool mail[MESSAGES];         /* at the relay, for B */
bool receipt[MESSAGES];      /* at the relay, for A */
byte shown[MESSAGES];
bool a_was_restored, b_was_restored;  /* the relay was, since the last login */

/* What a crash takes along. */
bool a_online, b_online;
bool frame[MESSAGES];        /* A's, on its way to the relay */
bool answer[MESSAGES];       /* the relay's, on its way to A */
bool fresh[MESSAGES];        /* mail that B's connection was not given yet */
bool unacknowledged[MESSAGES];
bool recent[MESSAGES];       /* the relay's memory of what was acknowledged */
bool early[MESSAGES];        /* ACK_FIRST: acknowledged, not committed */

byte written, faults, i;

mtype = { relay_stores, a_hears, a_writes, b_acknowledges, b_takes, b_receipts, a_takes, a_connects, b_connects, a_crashes, b_crashes, relay_crashes, relay_restored };

#define TRACE(event, number) printf("TRACE %e %d rows=%d%d%d mail=%d%d%d shown=%d%d%d\n", \
    event, number, DIGITS(row), DIGITS(mail), DIGITS(shown))

#define LOSE_A a_online = false; EACH(frame[i] = false; answer[i] = false)
#define LOSE_B b_online = false; EACH(fresh[i] = false; unacknowledged[i] = false; early[i] = false)
#define LOSE_RELAY LOSE_A; LOSE_B; EACH(recent[i] = false)

#define SHOW \
    if :: !seen[i] -> shown[i]++; assert(shown[i] == 1); owed[i] = true :: else fi; \
    seen[i] = REMEMBERED
#ifdef NO_SEEN
#define REMEMBERED false
#else
#define REMEMBERED true
#endif

#ifdef FORGET_SENT
#define AFTER_SENT DONE
#else
#define AFTER_SENT AWAITING
#endif

#define RELAY_STORES(m) \
    :: atomic { frame[m] -> frame[m] = false; answer[m] = true; \
        if :: !recent[m] && !mail[m] -> mail[m] = true; fresh[m] = b_online :: else fi; \
        TRACE(relay_stores, m) }
#define A_HEARS(m) \
    :: atomic { answer[m] -> answer[m] = false; \
        if :: row[m] == QUEUED -> row[m] = AFTER_SENT :: else fi; \
        TRACE(a_hears, m) }

active proctype world() {
    do
    :: atomic { written < MESSAGES ->
        row[written] = QUEUED; frame[written] = a_online; written++;
        TRACE(a_writes, written - 1) }
    RELAY_STORES(0)
    A_HEARS(0)
#if MESSAGES > 1
    RELAY_STORES(1)
    A_HEARS(1)
#endif
#if MESSAGES > 2
    RELAY_STORES(2)
    A_HEARS(2)
#endif
#ifdef ACK_FIRST
    :: atomic { b_online && ANY(fresh) ->
        EACH(if :: fresh[i] -> fresh[i] = false; early[i] = true; mail[i] = false :: else fi);
        TRACE(b_acknowledges, 0) }
    :: atomic { ANY(early) ->
        EACH(if :: early[i] -> early[i] = false; SHOW :: else fi);
        TRACE(b_takes, 0) }
#else
    :: atomic { b_online && ANY(fresh) ->
        EACH(if :: fresh[i] -> fresh[i] = false; unacknowledged[i] = true; SHOW :: else fi);
        TRACE(b_takes, 0) }
    :: atomic { ANY(unacknowledged) ->
        EACH(if :: unacknowledged[i] -> unacknowledged[i] = false; mail[i] = false; recent[i] = true :: else fi);
        TRACE(b_acknowledges, 0) }
#endif
    :: atomic { b_online && ANY(owed) ->
        EACH(if :: owed[i] -> owed[i] = false; receipted[i] = true; receipt[i] = true :: else fi);
        TRACE(b_receipts, 0) }
    :: atomic { a_online && ANY(receipt) ->
        EACH(if :: receipt[i] -> receipt[i] = false; row[i] = DONE :: else fi);
        TRACE(a_takes, 0) }
    :: atomic { !a_online -> a_online = true;
        EACH(if :: a_was_restored && row[i] == AWAITING -> row[i] = QUEUED :: else fi;
             frame[i] = (row[i] == QUEUED));
        a_was_restored = false;
        TRACE(a_connects, 0) }
    :: atomic { !b_online -> b_online = true;
        EACH(if :: b_was_restored && receipted[i] -> receipt[i] = true :: else fi;
             fresh[i] = mail[i]);
        b_was_restored = false;
        TRACE(b_connects, 0) }
    :: atomic { faults < FAULTS && a_online -> faults++; LOSE_A; TRACE(a_crashes, 0) }
    :: atomic { faults < FAULTS && b_online -> faults++; LOSE_B; TRACE(b_crashes, 0) }
    :: atomic { faults < FAULTS -> faults++; LOSE_RELAY; TRACE(relay_crashes, 0) }
    :: atomic { faults < FAULTS -> faults++; LOSE_RELAY;
        EACH(mail[i] = false; receipt[i] = false);
        a_was_restored = true; b_was_restored = true;
        TRACE(relay_restored, 0) }
    :: faults < FAULTS -> faults = FAULTS
    :: else -> goto ended
    od;
ended:
    skip;
    EACH(assert(shown[i] == 1); assert(row[i] == DONE))
}
