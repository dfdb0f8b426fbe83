/*
 * A model of the ledger and of the sender's way: ../PROTOCOL.md, sections 5 and 6. README.md says what is checked and
 * how to run it; `check` holds the configurations. Names are those of PROTOCOL.md.
 *
 * Removals. Each NO_... switch, and a few with other names, takes one rule away; `check` lists them all.
 *
 * Time. `now` is true time. It moves by ticks, which come at any moment, END times at most. A tick stands for some
 * seconds, so that W, C and RENEW become 1 to 3. boot() is exact; what the ledger keeps in boot() (made, seen, horizon)
 * is kept here as true time, because only differences within one boot are ever used.
 *
 * The host's clock is true time + skew. It may be stepped to any skew at any moment, and after a reboot it shows
 * anything. Assumed: when the ledger is told synchronised(yes), |skew| <= E at that very moment, and while nobody steps
 * the clock skew stays. STEP is 0 here: every step of a tick is seen by `look`.
 *
 * The sender's clock is 0 to A ahead of true time whenever it claims to be synchronised; a sender that does not claim it
 * makes no packet with a time, which is a run of this model too, since making one is never forced. Assumed: A + E <= W.
 *
 * The network. Whatever was sent once can be delivered at any later moment, any number of times, or never. Requests
 * are all kept. Of the replies to each intent one is kept at a time, and the network chooses which.
 *
 * A challenge is 16 random bytes, so it never comes back once it has left the slots. Hence two numbers are enough for
 * those in the slots, and every copy of one that left becomes DEAD: what holds it stays deliverable, but is never fresh.
 */

/* Sizes. `check` sets them for each configuration. */
#ifndef INTENTS
#define INTENTS	1	/* 1 or 2, of one key */
#endif
#ifndef W
#define W	1
#endif
#ifndef C
#define C	2
#endif
#ifndef RENEW
#define RENEW	1
#endif
#ifndef END
#define END	4	/* ticks */
#endif
#ifndef A
#define A	1
#endif
#ifndef E
#define E	0
#endif
#ifndef FAR
#define FAR	0	/* the host's clock goes wrong by up to so much, either way; 0: never */
#endif
#ifndef DELAYED
#define DELAYED	INTENTS	/* so many intents may get a reply late; the other one gets it at once or never */
#endif
/* BARRIER: the second intent is a barrier. AGE: keep what the property about old packets needs.
   TIME_ONLY: no challenge is ever used. REACH: the situation that is to be shown reachable, below. */
#ifndef REACH
#define REACH	0
#endif
#define reach(n)	assert(REACH != n)
#define RUN_BY_CHALLENGE	1
#define RUN_BY_TIME		2
#define RETRY_AFTER_STALE	3
#define BAR_NEEDED		4	/* a form with a time is held back, and only bar will stop it */
#define RESTART_AFTER_RUN	5
#define RULE5_FORBIDS		6
#define BARRIER_ACCEPTED	7

#define START	(FAR + W + 8)		/* now at the start; so large that real() - W stays above 0 */
#define TOP	(START + END + A)	/* the latest time that a packet can bear */
#define LONG	(END + 1)		/* longer than a run of this model; ledger age is sent as at most this */
#define NONE	0
#define DEAD	3			/* a challenge that is in no slot any more */

/* Kinds of reply. The host's reply to a known id is ACCEPTED too: here every fresh request is accepted and final. */
#define STATUS		1
#define STALE		2
#define ACCEPTED	3

/* What has run an intent. */
#define BY_CHALLENGE	1
#define BY_TIME		2

#define max(a, b)	((a) > (b) -> (a) : (b))
#define min(a, b)	((a) < (b) -> (a) : (b))
#define sat(a)		max(a, 0)
#define clip(a)		max(min(a, TOP), START - 1)

typedef Reply {
	byte kind;
	byte challenge;
	byte age		/* ledger age when it was sent */
};

typedef Intent {
	byte first;		/* when any form was first sent; NONE: no form yet */
	byte time;		/* the form with a time exists and bears this; NONE: it does not exist */
	bool sealed[4];		/* the form with challenge 1, 2 or DEAD exists */
	Reply kept;		/* the reply that the network holds */
	byte ran;		/* for the properties: BY_CHALLENGE, BY_TIME or NONE */
#ifdef BARRIER
	bool before;		/* for the properties: the form with a time is older than an accepted barrier */
	bool sealed_before[4];
#endif
#ifdef AGE
	byte made;		/* for the properties: true time when a form was made */
	byte sealed_made[4]
#endif
};

typedef Slot {
	byte challenge;
	byte made
};

Intent intent[INTENTS];

byte now = START;
byte booted = START - LONG;
short skew;			/* the host's clock, against true time */
#define real()		(now + skew)
#define boot()		(now - booted)

/* The ledger, with one key. `begun` is not here: no rule reads it. The first ledger of a run is an old one, and knows
   nothing. ANSWERS is 1: the second fresh request makes the ledger forget the first. */
bool clock_ok = true;
short offset = START - LONG;
byte floor = START - 1;
byte horizon = START - LONG;
Slot slot[2];
bool known;			/* the only entry is used, */
byte entry_id;			/* by this intent, */
byte entry_bar;
byte entry_seen;

/* For the properties only. */
bool spent[4];			/* this challenge has made a request fresh */
byte highest = START - 1;		/* floor after the last event */

/* Only used within one d_step, so they are not part of a state. */
hidden short f;
hidden byte fresh;
hidden byte n;
hidden Reply answer;

/* A challenge leaves the slots for ever. */
inline leaves(gone) {
	n = 0;
	do
	:: n < INTENTS ->
		if
		:: gone != NONE && intent[n].sealed[gone] ->
			intent[n].sealed[gone] = false;
			intent[n].sealed[DEAD] = true
#ifdef BARRIER
			; intent[n].sealed_before[gone] = false
#endif
#ifdef AGE
			; intent[n].sealed_made[gone] = 0
#endif
		:: else
		fi;
		if
		:: gone != NONE && intent[n].kept.challenge == gone -> intent[n].kept.challenge = DEAD
		:: else
		fi;
		n++
	:: else -> break
	od;
	spent[gone] = false
}

inline use_up(place) {
	leaves(slot[place].challenge);
	slot[place].challenge = NONE;
	slot[place].made = 0
}

/* 5.1. `floor` is only ever changed here, in judge and in synchronised. */
inline install() {
#ifdef NO_FLOOR_AT_INSTALL
	floor = 0;
#else
	floor = real() + W;
#endif
	floor = clip(floor);
	highest = floor;
#ifndef NO_HORIZON_AT_INSTALL
	horizon = now;
#endif
#ifdef CHALLENGES_SURVIVE
	if
	:: booted == now -> use_up(0); use_up(1)	/* a reboot takes them all the same */
	:: else
	fi;
#else
	use_up(0);
	use_up(1);
#endif
	known = false;
	entry_id = 0; entry_bar = 0; entry_seen = 0
}

inline begin() {
#ifndef CLOCK_OK_AT_BEGIN
	clock_ok = false;
#endif
	offset = real() - boot();
	install()
#ifdef NO_FLOOR_AT_BEGIN
	;
	floor = START - 1;
	highest = floor
#endif
}

inline look() {
	if
	:: real() - boot() != offset ->
#ifndef NO_LOOK
		clock_ok = false;
#endif
		offset = real() - boot()
	:: else
	fi
}

inline synchronised_yes() {
	look();
	if
	:: !clock_ok ->
		clock_ok = true;
#ifdef NO_RAISE_AT_SYNCHRONISED
		skip
#elif defined(NO_MAX_AT_SYNCHRONISED)
		floor = real() + W
#else
		floor = max(floor, real() + W)
#endif
	:: else
	fi;
	settled()
}

inline synchronised_no() {
	look();
	clock_ok = false
}

inline issue() {
	if
	:: slot[0].challenge == NONE || now - slot[0].made >= RENEW ->
		leaves(slot[1].challenge);
		slot[1].challenge = slot[0].challenge;
		slot[1].made = slot[0].made;
		slot[0].challenge = (slot[1].challenge == 1 -> 2 : 1);
		slot[0].made = now
	:: else
	fi;
	answer.challenge = slot[0].challenge
}

/* The answer leaves. `keep`: it is not lost. "accepted" is a final word, so that when it comes does not matter. */
inline reply(i, what) {
	answer.kind = what;
	answer.age = min(now - horizon, LONG);
	if
	:: !keep -> skip
	:: keep && what == ACCEPTED -> said_accepted(i)
	:: keep && what != ACCEPTED && i >= DELAYED -> receive(i, answer)
	:: else ->
		intent[i].kept.kind = answer.kind;
		intent[i].kept.challenge = answer.challenge;
		intent[i].kept.age = answer.age
	fi
}

/* The end of every event: floor never falls. No packet bears a time before START or after TOP, so that what lies
   outside is all alike. An entry's bar that has been reached is like none. */
inline settled() {
	floor = clip(floor);
	assert(floor >= highest);
	highest = floor;
	if
	:: entry_bar <= floor -> entry_bar = 0
	:: else -> entry_bar = clip(entry_bar)
	fi
}

inline judge_status(i) {
	look();
	issue();
	reply(i, STATUS);
	settled()
}

#ifdef NO_CHALLENGE_EXPIRY
#define alive(s)	true
#else
#define alive(s)	(now - slot[s].made < C)
#endif

#ifdef NO_LOWER_BOUND
#define lower		0
#else
#define lower		sat(real() - W)
#endif
#ifdef NO_BOOT_TERM
#define boot_term	0
#else
#define boot_term	(sat(real() - boot()) + W)
#endif
#ifdef NO_UPPER_BOUND
#define upper		true
#else
#define upper		(intent[i].time <= real() + W)
#endif
#ifdef NO_CLOCK_OK
#define timely		true
#else
#define timely		clock_ok
#endif
#ifdef NO_ID_MEMORY
#define is_known(i)	false
#else
#define is_known(i)	(known && entry_id == i)
#endif

/* 5.2 and 5.3 for a run. with: the challenge of the form; NONE: it is the form with a time. Every fresh request is
   accepted and final at once: what is refused does not run, and what is pending cannot be forgotten. Silence for want of
   budget is a reply that is lost. */
inline judge_run(i, with) {
	look();
	answer.challenge = NONE;
	if
	:: is_known(i) -> reply(i, ACCEPTED)
	:: else ->
		f = max(floor, lower);
		f = max(f, boot_term);
#ifndef NO_FIRST_SIGHT
		if
		:: with == NONE -> floor = max(floor, intent[i].time)
		:: else
		fi;
#endif
		if
		:: with == NONE -> fresh = timely && f < intent[i].time && upper
		:: else -> fresh = (with == slot[0].challenge && alive(0)) || (with == slot[1].challenge && alive(1))
		fi;
		if
		:: !fresh ->
			issue();
			reply(i, STALE)
		:: else ->
			judge_fresh(i, with);
			reply(i, ACCEPTED)
		fi
	fi;
	settled()
}

inline judge_fresh(i, with) {
	/* a challenge makes at most one request fresh */
	assert(!(with != NONE && spent[with]));
	/* a packet is accepted once, whatever the ledger */
	assert(!(with == NONE && intent[i].ran == BY_TIME));
#ifdef BARRIER
	/* what was made before an accepted barrier is dead */
	assert(!(with == NONE && intent[i].before));
	assert(!(with != NONE && intent[i].sealed_before[with]));
#endif
#ifdef AGE
	/* a packet that was held back too long is dead */
	assert(!(with == NONE && now - intent[i].made >= W + A + E));
	assert(!(with != NONE && now - intent[i].sealed_made[with] >= C));
#endif
	/* an intent runs once, whatever the ledger */
	assert(intent[i].ran == NONE);

	if
	:: with == NONE -> intent[i].ran = BY_TIME; reach(RUN_BY_TIME)
	:: else -> intent[i].ran = BY_CHALLENGE; spent[with] = true; reach(RUN_BY_CHALLENGE)
	fi;

#ifdef NO_USED_UP
	skip;
#elif defined(ONE_SLOT)
	if
	:: with != NONE && with == slot[0].challenge -> use_up(0)
	:: with != NONE && with == slot[1].challenge -> use_up(1)
	:: else
	fi;
#else
	use_up(0);
	use_up(1);
#endif

	if
	:: known ->
		if
		:: entry_bar > floor && intent[entry_id].time > floor -> reach(BAR_NEEDED)
		:: else
		fi;
#ifndef NO_HORIZON_AT_FORGETTING
		horizon = max(horizon, entry_seen);
#endif
#ifndef NO_BAR
		floor = max(floor, entry_bar);
#endif
		skip
	:: else
	fi;
	known = true;
	entry_id = i;
	entry_seen = now;
	entry_bar = (with != NONE -> sat(real() + W) : 0);

#ifdef BARRIER
	if
	:: i == 1 ->
		reach(BARRIER_ACCEPTED);
#ifndef NO_RAISE_AT_BARRIER
		floor = max(floor, real() + W);
#endif
		n = 0;
		do
		:: n < INTENTS ->
			intent[n].before = intent[n].time != NONE;
			intent[n].sealed_before[1] = intent[n].sealed[1];
			intent[n].sealed_before[2] = intent[n].sealed[2];
			n++
		:: else -> break
		od
	:: else
	fi;
#endif
	skip
}

/* Rule 5 of section 6. Without a form so far there is nothing that could have run. */
#define rule5(i, r)	(intent[i].first == NONE || r.age > now - intent[i].first)
#ifdef NO_RULE5_ON_STALE
#define may_stale(i, r)	true
#else
#define may_stale(i, r)	rule5(i, r)
#endif
#ifdef NO_RULE5_ON_STATUS
#define may_status(i, r)	true
#else
#define may_status(i, r)	rule5(i, r)
#endif

/* Rule 4 of section 6. */
#ifdef TIME_AFTER_CHALLENGE
#define may_time	true
#else
#define may_time	(intent[i].first == NONE)
#endif

inline sent(i) {
	if
	:: intent[i].first == NONE -> intent[i].first = now
	:: else
	fi
}

/* Rules 3 and 5: the sender of intent i gets a reply that brings a challenge. */
inline receive(i, got) {
	if
#ifndef TIME_ONLY
	:: (got.kind == STATUS && may_status(i, got)) || (got.kind == STALE && may_stale(i, got)) ->
		sent(i);
		if
		:: !intent[i].sealed[got.challenge] ->
			intent[i].sealed[got.challenge] = true;
#ifdef AGE
			intent[i].sealed_made[got.challenge] = (got.challenge != DEAD -> now : 0);
#endif
			if
			:: got.kind == STALE && got.challenge != DEAD -> reach(RETRY_AFTER_STALE)
			:: else
			fi
		:: else
		fi
#endif
	:: else -> reach(RULE5_FORBIDS)
	fi
}

/* Rules 2 and 6. The sender goes on all the same: the reply might have been lost. */
inline said_accepted(i) {
#ifdef NO_RULE2
	assert(intent[1 - i].ran != NONE);
#endif
	assert(intent[i].ran != NONE)	/* who says "accepted" is right */
}

/* One operator's command, for one intent. Rule 1 and the repeats of rule 3 need nothing here: the network has every
   packet, and asks for the status whenever it likes. */
proctype Sender(byte i) {
	byte ahead;

	do
	:: atomic {
		/* Rule 4. "No reply for 1 s" is less than a tick, and the network can bring it about whenever it likes. */
		intent[i].time == NONE && may_time ->
		select(ahead : 0 .. A);
		d_step {
			sent(i);
			intent[i].time = now + ahead;
#ifdef AGE
			intent[i].made = now;
#endif
			ahead = 0
		}
	}
	:: d_step { intent[i].kept.kind != 0 -> receive(i, intent[i].kept) }
#ifdef SENDER_SLEEPS
	/* now - first stands still while the sender's machine sleeps */
	:: d_step { intent[i].first != NONE && intent[i].first < now -> intent[i].first++ }
#endif
	od
}

/* What the network does with the packets of one intent. */
proctype Network(byte i) {
	bool keep;

	do
	:: atomic {
		if :: keep = true :: keep = false fi;
		if
		:: d_step { judge_status(i); keep = false }
		:: d_step { intent[i].time != NONE -> judge_run(i, NONE); keep = false }
		:: d_step { intent[i].sealed[1] -> judge_run(i, 1); keep = false }
		:: d_step { intent[i].sealed[2] -> judge_run(i, 2); keep = false }
		:: d_step { intent[i].sealed[DEAD] -> judge_run(i, DEAD); keep = false }
		fi
	}
	od
}

/* What can never matter again is forgotten, to have fewer states. */
inline tidy() {
	if
	:: slot[0].challenge != NONE && !alive(0) -> use_up(0)
	:: else
	fi;
	if
	:: slot[1].challenge != NONE && !alive(1) -> use_up(1)
	:: else
	fi
}

inline restart_reached() {
	n = 0;
	do
	:: n < INTENTS ->
		if
		:: intent[n].ran != NONE -> reach(RESTART_AFTER_RUN)
		:: else
		fi;
		n++
	:: else -> break
	od
}

/* Time, and what can befall the host. */
proctype Host() {
	short s;

	do
	:: d_step { now < START + END -> now++; tidy() }
	/* the daemon or the module starts again */
	:: d_step { restart_reached(); begin() }
	/* the key is removed and installed again, and the ledger lives on */
	:: d_step { look(); install() }
	/* the host boots, with a clock that shows anything */
	:: atomic {
		select(s : -FAR .. FAR);
		d_step { restart_reached(); skew = s; s = 0; booted = now; begin() }
	}
#if FAR
	:: atomic {
		/* A step that no event sees changes nothing, so one sees it at once. */
		select(s : -FAR .. FAR);
		d_step { skew = s; s = 0; look() }
	}
	:: d_step { synchronised_no() }
#endif
#ifdef LATE_YES
	:: d_step { synchronised_yes() }
#else
	:: d_step { -E <= skew && skew <= E -> synchronised_yes() }
#endif
	od
}

init {
	atomic {
		byte i;
		for (i : 0 .. INTENTS - 1) {
			run Sender(i);
			run Network(i)
		}
		run Host()
	}
}
