# Kernscale: four programs in C for Linux. `make help` lists what can be made.
PREFIX     ?= /usr
SBINDIR    ?= $(PREFIX)/sbin
BINDIR     ?= $(PREFIX)/bin
PKG_CONFIG ?= pkg-config
CFLAGS     ?= -O2 -g
VERSION    := $(shell cat VERSION)

ifeq ($(origin CC),default)
CC := gcc
endif
FUZZ_CC ?= clang

# SANITIZE=address,undefined builds beside the ordinary build, in its own folder.
SANITIZE ?=
comma := ,
B := build$(if $(SANITIZE),/san-$(subst $(comma),-,$(SANITIZE)))
ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-6s %s\n'
endif

packages := libmnl libnl-3.0 libnl-route-3.0 libnftnl libsodium libcurl jansson openssl libsystemd \
	libnghttp2 libzstd sqlite3 libpq yaml-0.1 libcares
pkg_cflags := $(shell $(PKG_CONFIG) --cflags $(packages) 2>/dev/null)
pkg_libs   := $(shell $(PKG_CONFIG) --libs $(packages) 2>/dev/null) -lm

# Flags that some compilers or machines refuse are probed, once for each compiler. That a level of _FORTIFY_SOURCE is
# too high is said by libc's headers alone (\043 is what begins a comment here).
try = $(shell printf '$(2)int main(void){return 0;}' | $(CC) -Werror $(1) -x c -o /dev/null - 2>/dev/null && echo $(1))
warn   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wcast-qual -Wwrite-strings -Wformat=2 -Wundef -Wvla
harden := -fstack-protector-strong -fPIE $(call try,-fstack-clash-protection) \
	$(call try,-fcf-protection) $(call try,-ftrivial-auto-var-init=zero) \
	$(if $(SANITIZE),,-D_FORTIFY_SOURCE=$(if $(call try,-O2 -D_FORTIFY_SOURCE=3,\043include <stdio.h>\n),3,2))
std    := -std=gnu11 -D_GNU_SOURCE -I. -DKERNSCALE_VERSION='"$(VERSION)"'
ks_cflags  = $(std) $(warn) $(harden) $(pkg_cflags) $(if $(WERROR),-Werror) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ks_ldflags = -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(if $(SANITIZE),-fsanitize=$(SANITIZE))

src_lib         := $(wildcard lib/*.c)
src_proto       := $(wildcard proto/*.c)
src_nft         := $(wildcard nft/*.c)
src_relay       := $(filter-out relay/main.c,$(wildcard relay/*.c))
src_daemon      := $(filter-out daemon/main.c,$(wildcard daemon/*.c daemon/*/*.c))
src_coordinator := $(filter-out coordinator/main.c,$(wildcard coordinator/*.c coordinator/*/*.c))
src_wgctl       := $(filter-out wgctl/main.c,$(wildcard wgctl/*.c))
parts := lib proto nft relay daemon coordinator wgctl
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))

programs := $(if $(wildcard daemon/main.c),$(B)/kernscaled) $(if $(wildcard wgctl/main.c),$(B)/wgctl) \
	$(if $(wildcard coordinator/main.c),$(B)/kernscale-coordinator) $(if $(wildcard relay/main.c),$(B)/kernscale-relay)
units  := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_*.c))
kernel_tests := $(patsubst %.c,$(B)/%,$(wildcard tests/kernel/test_*.c))
replay := $(patsubst tests/fuzz/fuzz_%.c,$(B)/tests/fuzz/replay_%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz   := $(patsubst tests/fuzz/fuzz_%.c,$(B)/tests/fuzz/fuzz_%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: all clean help
.SECONDARY:
all: $(programs)

define archive
$(B)/lib$(1).a: $$(call obj,$$(src_$(1)))
	$$(say) AR $$@
	$$(Q)rm -f $$@; ar rcs $$@ $$^
endef
$(foreach p,$(parts),$(eval $(call archive,$(p))))
archives := $(parts:%=$(B)/lib%.a)
base     := $(B)/librelay.a $(B)/libnft.a $(B)/libproto.a $(B)/liblib.a

link = mkdir -p $(@D) && $(CC) $(CFLAGS) $(ks_ldflags) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(pkg_libs)

$(B)/kernscaled: $(B)/obj/daemon/main.o $(B)/libdaemon.a $(base)
	$(say) LINK $@
	$(Q)$(link)
$(B)/wgctl: $(B)/obj/wgctl/main.o $(B)/libwgctl.a $(base)
	$(say) LINK $@
	$(Q)$(link)
$(B)/kernscale-coordinator: $(B)/obj/coordinator/main.o $(B)/libcoordinator.a $(base)
	$(say) LINK $@
	$(Q)$(link)
$(B)/kernscale-relay: $(B)/obj/relay/main.o $(base)
	$(say) LINK $@
	$(Q)$(link)

$(B)/obj/%.o: %.c
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ks_cflags) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/unit/test_%: $(B)/obj/tests/unit/test_%.o $(archives)
	$(say) LINK $@
	$(Q)$(link) -lcmocka
$(B)/tests/unit/test_derpc: LDFLAGS += -Wl,--wrap=derp_put_client_info
$(B)/tests/unit/test_json_memory: LDFLAGS += -Wl,--wrap=malloc -Wl,--wrap=free
$(B)/tests/kernel/test_%: $(B)/obj/tests/kernel/test_%.o $(archives)
	$(say) LINK $@
	$(Q)$(link)
$(B)/tests/interop/%: $(B)/obj/tests/interop/%.o $(B)/libdaemon.a $(base)
	$(say) LINK $@
	$(Q)$(link)
wrapped := malloc calloc realloc reallocarray strdup strndup free abort __assert_fail
$(B)/tests/fuzz/replay_%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/obj/tests/fuzz/replay.o $(B)/obj/tests/fuzz/nomem.o $(archives)
	$(say) LINK $@
	$(Q)$(link) $(wrapped:%=-Wl,--wrap=%)
$(B)/tests/fuzz/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(archives)
	$(say) LINK $@
	$(Q)$(link) -fsanitize=fuzzer

clean:
	rm -rf build

-include tests/tests.mk
-include $(shell find build -type f -name '*.d' 2>/dev/null)
