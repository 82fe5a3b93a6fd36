#!/bin/bash
# limit: 600 s
# A hostile server takes the place of the coordinator, or the network on the way there turns hostile:
# nothing it sends before the first map, and nothing it does not send, costs alice and bob a packet. alice's
# memory, descriptors and CPU stay bounded, `wgctl status` answers at once and says what is wrong, and when
# a good server is back all is well at the next attempt. 42-hostile-maps goes on.
. "$(dirname "$0")/lib.sh"
. "$HERE/bad.sh"

# --- before Noise
try reset 1 600 4 'onnection'
try tls-garbage 1 600 4 'TLS|SSL|version'
try tls-mute 1 600 4 ''
try up-garbage 1 600 4 'not HTTP/1.1'
try up-drip 1 600 4 ''
try up-huge 1 600 4 'not HTTP/1.1'
try up-page 1 600 4 'status 503: <h1>'
try up-noise 1 600 4 'does not have the key'
try up-mute 12 50 4 'timed out'
try key-garbage 1 600 4 'no coordination server|not valid HTTP'
try key-huge 1 600 4 'too long'
try key-chunks 1 600 4 'too long'
try key-length 1 600 4 'too long'
try key-mute 1 600 4 'status 400|refuses our version|other key'
try key-drip 1 600 4 ''
try key-moved 1 600 4 'sends us elsewhere'
try up-moved 1 600 4 'sends us elsewhere'
[ "$(calls)" = 0 ] || fail "alice went where the server sent her: $(calls) packets"
STAYS=1 try key-other 1 600 4 'shows another key than before'
# --- Noise and HTTP/2
try rec-flip 1 600 4 'does not decrypt'
try rec-empty 3 600 4 ''
try early-huge 1 600 4 'early payload too long'
try early-most 1 600 24 ''
try h2-garbage 1 600 4 'HTTP/2 broke off'
try h2-mute 1 600 4 ''
try h2-pings 3 600 8 ''
try h2-settings 3 600 8 ''
try h2-headers 3 600 8 ''
try h2-goaway 1 600 4 ''
# --- logins
try login-error 1 600 4 'database is locked'
try login-status 1 600 4 'status 500'
try login-url 1 600 4 'cannot be read'
try login-huge 2 600 8 ''
try login-never 1 600 4 ''
recovered
