/* Sesame: which session two devices use, when both may begin, renew, and messages are lost, repeated, reordered.
 *
 * Sesame, revision 2, sections 3.3 and 3.4, with lokket's archive. Sessions are numbers; keys are not modelled.
 * Each TRACE line is one event, which tests/models/test_initiation.py repeats with lokket.protocol.pairwise.
 *
 * Holds: whatever arrives is opened, once; after a round trip both devices use one session.
 * Bites: -DARCHIVE=0  nothing is kept: what was under way in the other side's session does not open.
 *        -DSTUBBORN   a device stays with the session that it began: the two never agree.
 */

#ifndef MESSAGES
#define MESSAGES 2  /* of each device */
#endif
#ifndef RENEWALS
#define RENEWALS 1
#endif
#ifndef ARCHIVE
#define ARCHIVE 5   /* limits.ARCHIVED_SESSIONS_MAX */
#endif
#define SESSIONS (3 + RENEWALS)
#define SLOTS (MESSAGES + 1)  /* the last one is the round trip at the end */

#define UNDER_WAY 1
#define READ 2
#define LOST 3

mtype = { writes, reads, reads_again, loses, renews };

byte current[2];                   /* session number; 0: none */
byte archived[2];                  /* how many */
byte since[2 * SESSIONS];          /* when a device archived a session; 0: not in its archive */
bool acknowledged[SESSIONS];       /* the one who began it has heard from the other in it */
byte beginner[SESSIONS];
byte sessions, renewals, moment;

byte written[2];
byte fate[2 * SLOTS];              /* of a message: 0: not written */
byte session_of[2 * SLOTS];
bool first_kind[2 * SLOTS];        /* a prekey message */

byte k, oldest, s, m;
bool repeated;

#define TRACE(event, device, number, session, prekey) \
    printf("TRACE %e %d %d session=%d prekey=%d current=%d,%d archived=%d,%d\n", \
        event, device, number, session, prekey, current[0], current[1], archived[0], archived[1])

#define AT(device, session) since[(device) * SESSIONS + (session)]
#define MESSAGE(device, number) ((device) * SLOTS + (number))

/* The current session goes to the archive's front; beyond its bound the oldest goes for good. */
#define SET_ASIDE(d) \
    if :: current[d] -> \
        moment++; AT(d, current[d]) = moment; archived[d]++; \
        if :: archived[d] > ARCHIVE -> \
            oldest = 0; k = 1; \
            do :: k < SESSIONS -> \
                if :: AT(d, k) && (!oldest || AT(d, k) < AT(d, oldest)) -> oldest = k :: else fi; k++ \
               :: else -> break od; \
            AT(d, oldest) = 0; archived[d]-- \
        :: else fi \
    :: else fi

#define BEGIN(d) \
    sessions++; assert(sessions < SESSIONS); SET_ASIDE(d); \
    beginner[sessions] = d; current[d] = sessions

#define WRITE(d) \
    if :: !current[d] -> BEGIN(d) :: else fi; \
    m = MESSAGE(d, written[d]); \
    fate[m] = UNDER_WAY; session_of[m] = current[d]; \
    first_kind[m] = (beginner[current[d]] == d && !acknowledged[current[d]]); \
    TRACE(writes, d, written[d], session_of[m], first_kind[m]); \
    written[d]++

/* ``d`` reads the message in slot ``m`` of the other. */
#define OPEN(d) \
    s = session_of[m]; fate[m] = READ; \
    if :: s == current[d] \
       :: s != current[d] && AT(d, s) -> \
            AT(d, s) = 0; archived[d]--; PROMOTE(d) \
       :: else -> \
            assert(first_kind[m] && beginner[s] != d); \
            SET_ASIDE(d); current[d] = s \
    fi; \
    if :: beginner[s] == d -> acknowledged[s] = true :: else fi

#ifdef STUBBORN
#define PROMOTE(d) \
    if :: beginner[s] == d -> SET_ASIDE(d); current[d] = s \
       :: else -> moment++; AT(d, s) = moment; archived[d]++ fi
#else
#define PROMOTE(d) SET_ASIDE(d); current[d] = s
#endif

#define DEVICE(d) \
    :: atomic { written[d] < MESSAGES -> WRITE(d) } \
    :: atomic { renewals < RENEWALS && current[d] -> renewals++; BEGIN(d); TRACE(renews, d, 0, current[d], 0) }

#define FATE(other, n) \
    :: atomic { fate[MESSAGE(other, n)] == UNDER_WAY -> \
        m = MESSAGE(other, n); OPEN(1 - other); TRACE(reads, 1 - other, n, s, first_kind[m]) } \
    :: atomic { fate[MESSAGE(other, n)] == UNDER_WAY -> \
        fate[MESSAGE(other, n)] = LOST; TRACE(loses, 1 - other, n, 0, 0) } \
    :: atomic { fate[MESSAGE(other, n)] == READ && !repeated -> \
        repeated = true; TRACE(reads_again, 1 - other, n, 0, 0) }

active proctype world() {
    do
    DEVICE(0)
    DEVICE(1)
    FATE(0, 0)
    FATE(1, 0)
#if MESSAGES > 1
    FATE(0, 1)
    FATE(1, 1)
#endif
#if MESSAGES > 2
    FATE(0, 2)
    FATE(1, 2)
#endif
    :: renewals < RENEWALS -> renewals = RENEWALS
    :: !repeated -> repeated = true
    :: else -> goto quiet
    od;
quiet:
    atomic { WRITE(0); OPEN(1); TRACE(reads, 1, MESSAGES, s, first_kind[m]) }
    atomic { WRITE(1); OPEN(0); TRACE(reads, 0, MESSAGES, s, first_kind[m]) }
    assert(current[0] == current[1])
}
