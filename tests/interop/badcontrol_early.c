/* badcontrol_early: misdeeds before TLS, before Noise, between Noise and HTTP/2, and at the login. */
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/interop/badcontrol.h"

static void put_noise(struct conn *c, size_t n)
{
	uint8_t noise[4096];

	randombytes_buf(noise, sizeof(noise));
	put(c, noise, MIN(n, sizeof(noise)));
}

/* ---- before Noise ---- */

static void garbage(struct conn *c)
{
	put_noise(c, 3000);
	c->state = DEAF;
}

static void deaf(struct conn *c)
{
	c->state = DEAF;
}

static void reset(struct conn *c)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(stream_fd(c->s), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	conn_end(c);
}

static void garbage_for(struct conn *c, const struct http_head *h)
{
	(void)h;
	garbage(c);
}

static void deaf_for(struct conn *c, const struct http_head *h)
{
	(void)h;
	deaf(c);
}

/* A head that never ends, one byte with every tick. */
static void drip(struct conn *c)
{
	put_text(c, "HTTP/1.1 101 Switching Protocols\r\nX-Patience: ");
	c->state = DEAF;
	c->flows = true;
}

static void drip_for(struct conn *c, const struct http_head *h)
{
	(void)h;
	drip(c);
}

static void drip_tick(struct conn *c)
{
	if (c->flows && ++c->n % 5 == 0)
		put(c, "a", 1);
}

/* 100 MB as fast as they are taken, of a body or of a head. */
static void flow(struct conn *c, const char *head)
{
	put_text(c, head);
	c->state = DEAF;
	c->flows = true;
}

static void key_huge(struct conn *c)
{
	flow(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"publicKey\":\"");
}

static void key_chunks(struct conn *c)
{
	flow(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6400000\r\n{\"publicKey\":\"");
}

static void key_length(struct conn *c)
{
	flow(c, "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n{\"publicKey\":\"");
}

static void huge_head(struct conn *c, const struct http_head *h)
{
	(void)h;
	flow(c, "HTTP/1.1 101 Switching Protocols\r\nX-Patience: ");
}

static void huge_tick(struct conn *c)
{
	static char piece[16384];

	memset(piece, 'a', sizeof(piece));
	while (c->flows && c->s && stream_pending(c->s) < FULL && c->n < (100u << 20)) {
		put(c, piece, sizeof(piece));
		c->n += sizeof(piece);
	}
}

static void page(struct conn *c, const struct http_head *h)
{
	(void)h;
	put_text(c, "HTTP/1.1 503 " "Gone fishing\r\nContent-Length: 1000\r\n\r\n<h1>" EVIL);
	hang_up(c);
}

static void spoilt_noise(struct conn *c, const struct http_head *h)
{
	good_upgrade(c, h, true);
	c->state = DEAF;
}

/* As a server does that has another key, so that the node asks for it. */
static void refuse(struct conn *c, const struct http_head *h)
{
	(void)h;
	put_text(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
	hang_up(c);
}

static void key_garbage(struct conn *c)
{
	put_text(c, "HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n");
	garbage(c);
}

/* Elsewhere lies what nobody shall go to. */
static void redirect(struct conn *c)
{
	put_text(c, "HTTP/1.1 301 Moved Permanently\r\nLocation: http://198.51.100.10:7777/key\r\n"
		    "Content-Length: 0\r\n\r\n");
	hang_up(c);
}

static void redirect_for(struct conn *c, const struct http_head *h)
{
	(void)h;
	redirect(c);
}

static void key_other(struct conn *c)
{
	good_key(c, true);
}

/* ---- between Noise and HTTP/2 ---- */

static void flipped_record(struct conn *c)
{
	uint8_t plain[40] = { 0 }, record[64];
	int n = noise_seal(&c->tx, plain, sizeof(plain), record);

	record[10] ^= 1;
	put(c, record, (size_t)n);
	c->state = DEAF;
}

static void channel_deaf(struct conn *c)
{
	c->state = DEAF;
}

static void channel_flows(struct conn *c)
{
	c->state = DEAF;
	c->flows = true;
}

static void empty_records_tick(struct conn *c)
{
	uint8_t many[PIECES][NOISE_RECORD_HEADER + NOISE_TAG];

	for (int k = 0; k < PIECES && c->s && c->flows && stream_pending(c->s) < FULL; k++) {
		for (size_t i = 0; i < PIECES; i++)
			noise_seal(&c->tx, (const uint8_t *)"", 0, many[i]);
		put(c, many, sizeof(many));
	}
}

static void early_huge(struct conn *c)
{
	seal(c, "\xff\xff\xffTS\xff\xff\xff\xff{", 10);
	c->state = DEAF;
}

/* As much as stock servers may send, and then nothing. */
static void early_most(struct conn *c)
{
	CLEANUP(buf_done) struct buf b = { 0 };

	buf_put(&b, "\xff\xff\xffTS\x00\xa0\x00\x00", TS2021_EARLY_HEADER);
	memset(buf_tail(&b, TS2021_EARLY_MAX - 1), ' ', TS2021_EARLY_MAX - 1);
	buf_commit(&b, TS2021_EARLY_MAX - 1);
	seal(c, buf_data(&b), b.len);
	c->state = DEAF;
}

static void h2_garbage(struct conn *c)
{
	uint8_t noise[2000];

	randombytes_buf(noise, sizeof(noise));
	seal(c, noise, sizeof(noise));
	c->state = DEAF;
}

static void flood_tick(struct conn *c, const char *frame, size_t n)
{
	uint8_t many[PIECES * 32];

	for (size_t i = 0; i < PIECES; i++)
		memcpy(many + i * n, frame, n);
	for (int k = 0; k < PIECES && c->s && c->flows && stream_pending(c->s) < FULL; k++)
		if (seal(c, many, PIECES * n) < 0)
			return;
}

static void h2_greet(struct conn *c)
{
	seal(c, "\0\0\0\x4\0\0\0\0\0", 9); /* SETTINGS */
	channel_flows(c);
}

static void h2_pings_tick(struct conn *c)
{
	flood_tick(c, "\0\0\x8\x6\0\0\0\0\0" "hi there", 17);
}

static void h2_settings_tick(struct conn *c)
{
	flood_tick(c, "\0\0\0\x4\0\0\0\0\0", 9);
}

/* Headers that go on for ever. */
static void h2_headers(struct conn *c)
{
	h2_greet(c);
	seal(c, "\0\0\x1\x1\0\0\0\0\x1\x88", 10);
}

static void h2_headers_tick(struct conn *c)
{
	flood_tick(c, "\0\0\x0a\x9\0\0\0\0\x1\0\x03" "abc\x04" "defg", 19);
}

static void h2_leave(struct conn *c)
{
	h2_greet(c);
	seal(c, "\0\0\x8\x7\0\0\0\0\0\0\0\0\0\0\0\0\x2", 17);
}

/* ---- logins ---- */

static void login_error(struct h2_stream *st)
{
	CLEANUP(json_decref) json_t *o = json_pack("{s:s}", "Error", "database is locked " EVIL);
	char *text = json_dumps(o, 0);

	h2_respond(st, 200, "application/json", text, strlen(text));
	free(text);
}

static void login_status(struct h2_stream *st)
{
	h2_respond(st, 500, "text/html", "<h1>" EVIL, strlen("<h1>" EVIL));
}

static void login_huge(struct h2_stream *st)
{
	static char blank[OUT_MAX / 2];

	memset(blank, ' ', sizeof(blank));
	h2_respond(st, 200, "application/json", blank, sizeof(blank));
}

static void login_url(struct h2_stream *st)
{
	static const char text[] = "{\"AuthURL\":\"https://x/\\u001b]0;owned\\u0007\"}";

	h2_respond(st, 200, "application/json", text, sizeof(text) - 1);
}

static void login_never(struct h2_stream *st)
{
	(void)st;
}

const struct misdeed early_misdeeds[] = {
	{ "reset", .bare = true, .arrival = reset },
	{ "tls-garbage", .bare = true, .arrival = garbage },
	{ "tls-mute", .bare = true, .arrival = deaf },
	{ "up-garbage", .upgrade = garbage_for },
	{ "up-mute", .upgrade = deaf_for },
	{ "up-drip", .upgrade = drip_for, .tick = drip_tick },
	{ "up-huge", .upgrade = huge_head, .tick = huge_tick },
	{ "up-page", .upgrade = page },
	{ "up-noise", .upgrade = spoilt_noise },
	{ "key-garbage", .upgrade = refuse, .key = key_garbage },
	{ "key-huge", .upgrade = refuse, .key = key_huge, .tick = huge_tick },
	{ "key-chunks", .upgrade = refuse, .key = key_chunks, .tick = huge_tick },
	{ "key-length", .upgrade = refuse, .key = key_length, .tick = huge_tick },
	{ "key-mute", .upgrade = refuse, .key = deaf },
	{ "key-drip", .upgrade = refuse, .key = drip, .tick = drip_tick },
	{ "key-other", .upgrade = refuse, .key = key_other },
	{ "key-moved", .upgrade = refuse, .key = redirect },
	{ "up-moved", .upgrade = redirect_for },
	{ "rec-flip", .channel = flipped_record },
	{ "rec-empty", .channel = channel_flows, .tick = empty_records_tick },
	{ "early-huge", .channel = early_huge },
	{ "early-most", .channel = early_most },
	{ "h2-garbage", .channel = h2_garbage },
	{ "h2-mute", .channel = channel_deaf },
	{ "h2-pings", .channel = h2_greet, .tick = h2_pings_tick },
	{ "h2-settings", .channel = h2_greet, .tick = h2_settings_tick },
	{ "h2-headers", .channel = h2_headers, .tick = h2_headers_tick },
	{ "h2-goaway", .channel = h2_leave },
	{ "login-error", .login = login_error },
	{ "login-status", .login = login_status },
	{ "login-huge", .login = login_huge },
	{ "login-url", .login = login_url },
	{ "login-never", .login = login_never },
	{ 0 },
};
