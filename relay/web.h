#pragma once
/*
 * web: what a relay answers beside DERP: captive portal check, robots, a page for people.
 */
#include "lib/httpd.h"

/* Routes of the main listener: /generate_204, /robots.txt, / . */
int web_route(struct httpd *h);
/* Routes of the plain port beside TLS: /generate_204; all else is sent to https. */
int web_route_plain(struct httpd *h);
