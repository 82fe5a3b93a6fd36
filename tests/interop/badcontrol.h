#pragma once
/*
 * badcontrol: what its parts share. badcontrol.c is the server and all that it does well; badcontrol_early.c has
 * the misdeeds before a map, badcontrol_maps.c those with one.
 */
#include "lib/h2.h"
#include "lib/json.h"
#include "lib/noise.h"
#include "lib/stream.h"
#include "proto/ts2021.h"

#define OUT_MAX (64u << 20)
#define FULL	(256u << 10) /* a flood that nobody takes waits */
#define PIECES	64	     /* of a flood, in one turn */

/* Red, the window's title, C1, the order of letters turned round, a new line that looks like ours. */
#define EVIL "\x1b[31m\x1b]0;owned\x07\xc2\x9b" "31m\xe2\x80\xae\n100.64.0.9 forged\r\x7f"

struct conn {
	struct stream *s; /* NULL: free */
	enum { HTTP, CHANNEL, DEAF } state;
	struct noise_cipher tx;
	struct ts2021_records rx;
	struct h2 *h2;
	struct h2_stream *map; /* of the victim, while a misdeed goes on in it */
	bool flows, ends;
	unsigned long n; /* for whoever counts */
};

/* What is done instead of the right thing; NULL: the right thing. */
struct misdeed {
	const char *name;
	bool bare; /* no TLS */
	void (*arrival)(struct conn *c);
	void (*key)(struct conn *c);
	void (*upgrade)(struct conn *c, const struct http_head *h);
	void (*channel)(struct conn *c); /* Noise stands: no HTTP/2 of ours */
	void (*login)(struct h2_stream *st);
	void (*map)(struct conn *c, struct h2_stream *st, const json_t *good);
	void (*tick)(struct conn *c);
};

/* Ends with an entry without a name. */
extern const struct misdeed early_misdeeds[], map_misdeeds[];
/* The one that is done now. */
const struct misdeed *misdeed_now(void);

void conn_end(struct conn *c);
/* What is queued leaves, then the connection ends. */
void hang_up(struct conn *c);
void put(struct conn *c, const void *p, size_t n);
void put_text(struct conn *c, const char *s);
/* Plaintext into the channel. */
int seal(struct conn *c, const void *p, size_t n);

/* The answer to /key, with this key for ours; other: with one that is not. */
void good_key(struct conn *c, bool other);
/* spoil: what comes back does not decrypt. */
void good_upgrade(struct conn *c, const struct http_head *h, bool spoil);
/* As one compressed message of a map's stream. */
void send_text(struct h2_stream *st, const char *text);
void send_map(struct h2_stream *st, const json_t *m);
