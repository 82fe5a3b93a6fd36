#pragma once
/*
 * state: what survives a restart: keys, preferences, server key pins, ports. One file in the state
 * folder, replaced atomically and synced before anything in it is used; the disco key apart from
 * it in the runtime folder, because it lives as long as the kernel device and no longer.
 *
 * Owns the folder by a lock for as long as it is open. Private keys are wiped when it closes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/api/prefs.h"
#include "lib/cleanup.h"
#include "lib/jsonscan.h"
#include "lib/key.h"

#define STATE_PINS_MAX	   32
#define STATE_BYTES_MAX	   (1u << 20)

struct state_pin {
	char *url; /* server URL as configured */
	struct key key;
};

struct state {
	struct key_pair machine; /* made at first start, kept for good */
	struct key_pair node;	 /* zero = logged out */
	struct key_pair old_node; /* the one before, while the server may still know it */
	struct key_pair disco;
	bool registered;   /* a server has accepted the node key */
	char *login;	   /* whose node it is, for people; NULL = unknown */
	uint16_t relay_port; /* UDP port on loopback where the kernel meets the relays; 0 = none yet */
	uint16_t disco_port; /* the daemon's private one, in the nftables table; 0 = none yet */
	uint16_t wireguard_port; /* the last one that was in use; 0 = none yet */
	int last_home;	     /* home relay region of the last run; 0 = none */
	struct state_pin pin[STATE_PINS_MAX];
	size_t n_pins;
	bool want_running; /* up, as far as the user is concerned: state_want() */
	bool fresh; /* nobody has said so yet: it tells nothing of what was wanted before it was made */
	struct prefs prefs; /* all members set */
	char *dir, *runtime_dir;
	int lock_fd, runtime_lock_fd;
};

/*
 * Makes the folders (0700) and the file when missing, takes the lock. -EBUSY: another daemon has it; -EADDRINUSE: another has
 * the runtime folder;
 * -EBADMSG: the file cannot be read, and is left as it is, since the machine's identity is in it.
 */
int state_open(const char *dir, const char *runtime_dir, struct state **ret);
void state_free(struct state *s);
DEFINE_CLEANUP(struct state *, state_free)

/* What the user wants, for the next save. */
void state_want(struct state *s, bool running);
/* Writes and syncs. What was changed may be used once this has returned 0. */
int state_save(const struct state *s);
/* A new disco key: when the kernel device is made anew. Below 0: it is made, but not on disk. */
int state_new_disco(struct state *s);
int state_save_disco(const struct state *s);

/* NULL when the server is not known yet. */
const struct key *state_pin_find(const struct state *s, const char *url);
/* Sets or replaces; the oldest goes when there are too many. Does not save. */
int state_pin_set(struct state *s, const char *url, const struct key *key);

/* Trusts the next key that server shows, as at the first login. Does not save. */
void state_pin_drop(struct state *s, const char *url);

/* Forgets node keys and login, keeps machine key, pins and preferences. Does not save. */
void state_forget_node(struct state *s);

/* A path in the state folder, e.g. for the cache of the map. -ENAMETOOLONG. */
int state_path(const struct state *s, const char *name, char *out, size_t max);

/* Pure halves, for tests. decode fills a zeroed struct. */
struct buf;
int state_encode(const struct state *s, struct buf *out);
int state_decode(struct json_slice text, struct state *ret);
void state_done(struct state *s); /* frees and wipes the contents */
