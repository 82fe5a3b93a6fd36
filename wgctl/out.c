#include "wgctl/out.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/utf8.h"

#define NSEC_PER_SEC INT64_C(1000000000)

void out_safe(struct buf *b, const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	while (*p) {
		uint32_t c;
		size_t n = 0;

		while (p[n] >= ' ' && p[n] <= '~')
			n++;
		if (n) {
			buf_put(b, p, n);
			p += n;
			continue;
		}
		n = utf8_at((const char *)p, &c);
		if (!n) {
			buf_printf(b, "\\x%02x", *p++);
			continue;
		}
		if (utf8_acts_on_terminal(c))
			buf_printf(b, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
		else
			buf_put(b, p, n);
		p += n;
	}
}

static size_t text_width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

void out_table_init(struct out_table *t, size_t columns)
{
	*t = (struct out_table){ .columns = columns };
}

void out_table_done(struct out_table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct out_table){ 0 };
}

void out_table_cell(struct out_table *t, const char *s)
{
	struct buf b = { 0 };
	char **more = reallocarray(t->cells, t->n + 1, sizeof(*more));
	const char *text;

	if (!more) {
		t->bad = true;
		return;
	}
	t->cells = more;
	out_safe(&b, s ? s : "");
	text = b.bad ? NULL : buf_str(&b);
	t->cells[t->n] = text ? strdup(text) : NULL;
	buf_done(&b);
	if (t->cells[t->n])
		t->n++;
	else
		t->bad = true;
}

void out_table_cellf(struct out_table *t, const char *fmt, ...)
{
	CLEANUP(free) char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0) {
		s = NULL;
		t->bad = true;
		return;
	}
	out_table_cell(t, s);
}

static void put_blanks(struct buf *out, size_t n)
{
	while (n--)
		buf_put_u8(out, ' ');
}

void out_table_print(const struct out_table *t, const char *between, struct buf *out)
{
	size_t width[OUT_COLUMNS_MAX] = { 0 };

	if (t->bad || t->columns > OUT_COLUMNS_MAX) {
		out->bad = true;
		return;
	}
	for (size_t i = 0; i < t->n; i++)
		width[i % t->columns] = MAX(width[i % t->columns], text_width(t->cells[i]));
	for (size_t i = 0; i < t->n; i += t->columns) {
		size_t owed = 0; /* blanks that are written only when something follows */

		for (size_t k = 0; k < t->columns && i + k < t->n; k++) {
			const char *cell = t->cells[i + k];

			if (k) {
				size_t b = strlen(between);

				if (strspn(between, " ") == b) {
					owed += b;
				} else {
					put_blanks(out, owed);
					owed = 0;
					buf_put_str(out, between);
				}
			}
			if (*cell) {
				put_blanks(out, owed);
				owed = 0;
				buf_put_str(out, cell);
			}
			owed += width[k] - text_width(cell);
		}
		while (out->len && buf_data(out)[out->len - 1] == ' ')
			out->len--;
		buf_put_u8(out, '\n');
	}
}

/* v / scale with the fraction's zeros at the end left out. */
static int fraction(char *out, size_t size, uint64_t v, uint64_t scale)
{
	int n = snprintf(out, size, "%" PRIu64, v / scale);
	uint64_t rest = v % scale;

	if (!rest)
		return n;
	n += snprintf(out + n, size - (size_t)n, ".");
	while (rest && (size_t)n + 1 < size) {
		scale /= 10; /* a power of ten: rest is 0 once it is 1 */
		/* cppcheck-suppress zerodivcond */
		out[n++] = (char)('0' + rest / scale);
		rest %= scale;
	}
	out[n] = '\0';
	return n;
}

const char *out_duration(int64_t nsec, char out[static OUT_DURATION_MAX])
{
	uint64_t v = nsec < 0 ? 0 - (uint64_t)nsec : (uint64_t)nsec;
	char *p = out;
	size_t left = OUT_DURATION_MAX;
	uint64_t sec = v / NSEC_PER_SEC;
	int n;

	if (nsec < 0) {
		*p++ = '-';
		left--;
	}
	if (v == 0)
		snprintf(p, left, "0s");
	else if (v < 1000)
		snprintf(p, left, "%" PRIu64 "ns", v);
	else if (v < 1000000)
		n = fraction(p, left, v, 1000), snprintf(p + n, left - (size_t)n, "µs");
	else if (v < (uint64_t)NSEC_PER_SEC)
		n = fraction(p, left, v, 1000000), snprintf(p + n, left - (size_t)n, "ms");
	else {
		n = 0;
		if (sec >= 3600)
			n += snprintf(p, left, "%" PRIu64 "h", sec / 3600);
		if (sec >= 60)
			n += snprintf(p + n, left - (size_t)n, "%" PRIu64 "m", sec / 60 % 60);
		n += fraction(p + n, left - (size_t)n - 1, v % (60 * (uint64_t)NSEC_PER_SEC),
			      NSEC_PER_SEC);
		snprintf(p + n, left - (size_t)n, "s");
	}
	return out;
}

static int unit_msec(const char **s, double *ret)
{
	static const struct {
		const char *name;
		double msec;
	} units[] = { { "ms", 1 },	     { "us", 1e-3 },   { "µs", 1e-3 },
		      { "ns", 1e-6 },	     { "s", 1e3 },     { "m", 60e3 },
		      { "h", 3600e3 },	     { "d", 86400e3 }, { "w", 7 * 86400e3 },
		      { "y", 365 * 86400e3 } };

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		size_t n = strlen(units[i].name);

		if (!strncmp(*s, units[i].name, n)) {
			*s += n;
			*ret = units[i].msec;
			return 0;
		}
	}
	return -EINVAL;
}

int out_duration_parse(const char *s, int64_t *ret_msec)
{
	double total = 0, unit;

	if (!strcmp(s, "0")) {
		*ret_msec = 0;
		return 0;
	}
	if (!*s)
		return -EINVAL;
	while (*s) {
		char *end;
		double v;

		if (*s < '0' || *s > '9') /* no sign, no "inf" */
			return -EINVAL;
		if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X'))
			return -EINVAL;
		v = strtod(s, &end);
		s = end;
		if (unit_msec(&s, &unit) < 0)
			return -EINVAL;
		total += v * unit;
		if (!(total <= 100 * 365 * 86400e3))
			return -EINVAL;
	}
	*ret_msec = (int64_t)(total + 0.5);
	return 0;
}

int64_t out_since(int64_t now, int64_t then)
{
	int64_t d;

	/* Times come from elsewhere and may be of any year. */
	if (__builtin_sub_overflow(now, then, &d))
		return now > then ? INT64_MAX : 0;
	return MAX(d, 0);
}

const char *out_age(int64_t now, int64_t then, char out[static OUT_DURATION_MAX])
{
	int64_t sec = MAX(out_since(now, then) / NSEC_PER_SEC, 60);

	if (sec < 3600)
		snprintf(out, OUT_DURATION_MAX, "%" PRId64 "m ago", sec / 60);
	else if (sec < 86400)
		snprintf(out, OUT_DURATION_MAX, "%" PRId64 "h ago", sec / 3600);
	else
		snprintf(out, OUT_DURATION_MAX, "%" PRId64 "d ago", sec / 86400);
	return out;
}

const char *out_ago_words(int64_t nsec, char out[static 80])
{
	static const struct {
		const char *one;
		int64_t sec;
	} units[] = { { "year", 31536000 },
		      { "day", 86400 },
		      { "hour", 3600 },
		      { "minute", 60 },
		      { "second", 1 } };
	int64_t sec = nsec / NSEC_PER_SEC;
	size_t n = 0;

	out[0] = '\0';
	if (sec <= 0)
		snprintf(out, 80, "now");
	for (size_t i = 0; i < ARRAY_SIZE(units) && sec > 0; i++) {
		int64_t k = sec / units[i].sec;

		sec %= units[i].sec;
		if (!k)
			continue;
		n += (size_t)snprintf(out + n, 80 - n, "%s%" PRId64 " %s%s", n ? ", " : "", k,
				      units[i].one, k == 1 ? "" : "s");
		if (n >= 79)
			break;
	}
	if (n && n < 76)
		strcpy(out + n, " ago");
	return out;
}

const char *out_bytes(uint64_t v, char out[static 32])
{
	static const char *const unit[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double d = (double)v;
	size_t i = 0;

	if (v < 1024) {
		snprintf(out, 32, "%" PRIu64 " B", v);
		return out;
	}
	for (d /= 1024; d >= 1024 && i + 1 < ARRAY_SIZE(unit); i++)
		d /= 1024;
	snprintf(out, 32, "%.2f %s", d, unit[i]);
	return out;
}

/* The one control character that JSON lets through as it is; it stands in strings alone. */
#define DEL 0x7f

static int buf_sink(const char *p, size_t n, void *data)
{
	const char *del;

	for (; (del = memchr(p, DEL, n)); n -= (size_t)(del + 1 - p), p = del + 1)
		if (buf_put(data, p, (size_t)(del - p)) < 0 || buf_put_str(data, "\\u007f") < 0)
			return -1;
	return buf_put(data, p, n) < 0 ? -1 : 0;
}

int out_json_buf(struct buf *b, const json_t *j, enum out_json_form form, bool ascii)
{
	size_t flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) | (ascii ? JSON_ENSURE_ASCII : 0);
	CLEANUP(free) char *text = NULL;
	bool start = true;

	if (form != OUT_JSON_TABS) {
		flags |= form == OUT_JSON_LINE ? JSON_COMPACT : JSON_INDENT(2);
		if (json_dump_callback(j, buf_sink, b, flags) < 0)
			return -ENOMEM;
		return buf_put_u8(b, '\n');
	}
	text = json_dumps(j, flags | JSON_INDENT(1));
	if (!text)
		return -ENOMEM;
	/* Line ends inside strings are escaped: blanks at the start of a line are indentation. */
	for (const char *p = text; *p; p++) {
		if (*p == DEL)
			buf_put_str(b, "\\u007f");
		else
			buf_put_u8(b, start && *p == ' ' ? '\t' : (uint8_t)*p);
		start = *p == '\n' || (start && *p == ' ');
	}
	return buf_put_u8(b, '\n');
}

int out_flush(FILE *f, const struct buf *b)
{
	if (b->bad)
		return -ENOMEM;
	if (fwrite(buf_data(b), 1, b->len, f) != b->len || fflush(f) != 0)
		return errno ? -errno : -EIO;
	return 0;
}

int out_json(FILE *f, const json_t *j, enum out_json_form form)
{
	struct buf b = { 0 };
	int r;

	/* On a terminal only ASCII: names from elsewhere may hold anything that JSON lets
	 * through. */
	r = out_json_buf(&b, j, form, isatty(fileno(f)));
	if (r >= 0)
		r = out_flush(f, &b);
	buf_done(&b);
	return r;
}

int64_t out_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}
