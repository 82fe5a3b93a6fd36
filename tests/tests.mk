# tests.mk: everything beside building: tests, fuzzing, demo, benchmarks, lint, install.
# What needs packages calls scripts/deps first and make again, because the Makefile asks pkg-config
# for libraries before any target runs.
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
again = +$(Q)$(MAKE) --no-print-directory $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(JOBS))
# Each of these makes what it runs: two at once (`make -j check-unit check-fuzz-replay`) would make the same files.
ifneq ($(filter check% demo bench fuzz interop,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif
shells = $(shell grep -lE '^\#!/bin/(ba)?sh|shellcheck shell=' scripts/* .ci/* tests/run tests/*.sh tests/scenario/* \
	tests/fuzz/run tests/vm/* tests/bench/* tests/interop/* tests/native/* 2>/dev/null)

.PHONY: check check-unit check-fuzz-replay check-units check-native check-scenario check-systemd check-vm test-programs programs deps \
	fuzz fuzz-programs demo bench lint format interop install uninstall

deps:
	$(Q)scripts/deps all

test-programs: $(units) $(replay)
programs: all $(B)/tests/bench/netload $(B)/tests/interop/derpcat $(B)/tests/interop/ctlcat \
	$(B)/tests/interop/badrelay $(B)/tests/interop/badcontrol $(B)/tests/interop/crowd $(B)/tests/interop/flood $(B)/tests/interop/strangers \
	$(B)/tests/native/joinload \
	$(B)/tests/native/relayload $(B)/tests/native/pathload $(B)/tests/native/say $(B)/tests/native/stunload \
	$(B)/tests/scenario/standin $(B)/tests/scenario/squatter $(B)/tests/scenario/killer.so $(B)/tests/scenario/liar.so $(B)/tests/scenario/nomem.so $(B)/tests/scenario/synced.so $(kernel_tests)

check: deps
	$(again) SANITIZE=address,undefined test-programs
	$(again) SANITIZE=undefined programs
	$(if $(CHECK_FUZZ),$(again) $(fuzz_build))
	$(Q)tests/run unit replay units native scenario $(if $(CHECK_FUZZ),fuzz)

check-unit:
	$(again) SANITIZE=address,undefined test-programs
	$(Q)tests/run unit

check-fuzz-replay:
	$(again) SANITIZE=address,undefined test-programs
	$(Q)tests/run replay

check-units:
	$(Q)tests/run units

check-native:
	$(again) SANITIZE=undefined programs
	$(Q)tests/run native

check-scenario:
	$(again) SANITIZE=undefined programs
	$(Q)tests/run scenario

check-systemd: deps
	$(again) all $(B)/tests/scenario/killer.so
	$(Q)tests/run systemd

# KERNEL=6.12 or 6.1 says which of Debian's kernels (so does KERNEL_VERSION).
check-vm: export KERNEL_VERSION := $(or $(filter-out host uml vm,$(KERNEL)),$(KERNEL_VERSION),6.12)
check-vm: deps
	$(Q)scripts/deps vm
	$(again) SANITIZE=undefined programs
	$(again) SANITIZE=address,undefined programs
	$(again) all $(B)/tests/scenario/killer.so
	$(Q)KERNEL=vm tests/run scenario asan systemd

# FUZZ=NAME picks one target; FUZZ_SECONDS (60) or FUZZ_RUNS says how long each runs. What it finds goes
# to build/fuzz/found; put a crash into tests/fuzz/corpus/NAME once it is understood. CHECK_FUZZ=1 makes it
# a part of `make check`.
FUZZ ?=
fuzz_build := CC=$(FUZZ_CC) B=build/fuzz SANITIZE=address,undefined,fuzzer-no-link fuzz-programs
export FUZZ_SECONDS FUZZ_RUNS
fuzz-programs: $(if $(FUZZ),$(B)/tests/fuzz/fuzz_$(FUZZ),$(fuzz))
fuzz:
	$(again) $(fuzz_build)
	$(Q)tests/fuzz/run $(FUZZ)

demo:
	$(Q)scripts/deps demo
	$(again) programs
	$(Q)scripts/demo

bench: deps
	$(again) programs
	$(Q)tests/bench/run $(BENCH)

interop: deps
	$(again) $(if $(KERNSCALE_RECORD),record-programs,programs)
	$(Q)tests/interop/run $(STORY)

# The compilers' warnings count as well: .ci/run sets WERROR. A finding that is wrong is silenced on its line, with
# the reason.
c_files = $(wildcard lib/*.c proto/*.c nft/*.c relay/*.c daemon/*.c daemon/*/*.c wgctl/*.c \
	coordinator/*.c coordinator/*/*.c)
lint: deps
	$(again) lint-cppcheck lint-tidy lint-shell lint-man

.PHONY: lint-cppcheck lint-tidy lint-shell lint-man
# cppcheck does not follow a call into another file, so what cursor_copy() fills in looks unset to it,
# and it does not know __attribute__((cleanup)). clang's analyzer and the compilers see the first,
# LeakSanitizer in every unit test and replay the second. missingIncludeSystem: it is not given the system's
# headers, which it does without (tests/lint/cppcheck.h has what it must know of them).
lint-cppcheck:
	$(say) CPPCHK sources
	$(Q)mkdir -p build/cppcheck
	$(Q)cppcheck -q -j$(JOBS) --cppcheck-build-dir=build/cppcheck --enable=warning,portability,performance \
		--inline-suppr --suppress=missingIncludeSystem --suppress=uninitvar \
		--suppress=legacyUninitvar --suppress=memleak --std=c11 --error-exitcode=1 -D_GNU_SOURCE -I. --include=tests/lint/cppcheck.h $(c_files)

lint-tidy: $(c_files:%.c=build/tidy/%.ok)
build/tidy/%.ok: %.c .clang-tidy
	$(say) TIDY $<
	$(Q)mkdir -p $(@D)
	$(Q)clang-tidy --quiet $< -- $(std) $(pkg_cflags) 2>$@.log >$@.out || \
		{ cat $@.out; grep -E 'error:' $@.log; exit 1; }
	$(Q)touch $@

lint-shell:
	$(say) SHELL "$(words $(shells)) scripts"
	$(Q)shellcheck -x -P SCRIPTDIR $(shells)

lint-man:
	$(say) MANDOC docs/man
	$(Q)for f in $(wildcard docs/man/*.[1-8]); do mandoc -Tlint -Wwarning $$f || exit 1; done

format:
	$(Q)clang-format -i $(c_files) $(wildcard */*.h */*/*.h tests/*/*.c)

UNITDIR     ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
DOCDIR      ?= $(PREFIX)/share/doc/kernscale
MANDIR      ?= $(PREFIX)/share/man
# Where each shell looks for what a package brings.
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR  ?= $(PREFIX)/share/zsh/vendor-completions
FISHCOMPDIR ?= $(PREFIX)/share/fish/vendor_completions.d
unit_files = $(notdir $(wildcard systemd/*.service systemd/*.target))
install: all
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSUSERSDIR) \
		$(DESTDIR)$(TMPFILESDIR) $(DESTDIR)$(DOCDIR)
	$(Q)for p in $(notdir $(programs)); do case $$p in \
		wgctl) install -m 755 $(B)/$$p $(DESTDIR)$(BINDIR)/ ;; \
		*) install -m 755 $(B)/$$p $(DESTDIR)$(SBINDIR)/ ;; esac || exit 1; done
	$(Q)for u in $(unit_files); do sed 's|=\(-*\)/usr/sbin/|=\1$(SBINDIR)/|; s|=\(-*\)/usr/bin/|=\1$(BINDIR)/|' systemd/$$u \
		>$(DESTDIR)$(UNITDIR)/$$u && chmod 644 $(DESTDIR)$(UNITDIR)/$$u || exit 1; done
	$(Q)install -m 644 systemd/sysusers.conf $(DESTDIR)$(SYSUSERSDIR)/kernscale.conf
	$(Q)install -m 644 systemd/tmpfiles.conf $(DESTDIR)$(TMPFILESDIR)/kernscale.conf
	$(Q)install -m 644 README.md systemd/sysctl-gateway.conf $(wildcard docs/*.md docs/*.yaml) $(DESTDIR)$(DOCDIR)/
	$(Q)for m in $(wildcard docs/man/*.[1-8]); do d=$(DESTDIR)$(MANDIR)/man$${m##*.}; \
		install -d $$d && install -m 644 $$m $$d/ || exit 1; done
	install -d $(DESTDIR)$(BASHCOMPDIR) $(DESTDIR)$(ZSHCOMPDIR) $(DESTDIR)$(FISHCOMPDIR)
	$(Q)install -m 644 completion/wgctl.bash $(DESTDIR)$(BASHCOMPDIR)/wgctl
	$(Q)install -m 644 completion/_wgctl $(DESTDIR)$(ZSHCOMPDIR)/_wgctl
	$(Q)install -m 644 completion/wgctl.fish $(DESTDIR)$(FISHCOMPDIR)/wgctl.fish

# What is running goes first, unless it is a folder that is emptied: nothing of the mesh stays behind.
uninstall:
	$(Q)[ -n "$(DESTDIR)" ] || [ "$$(id -u)" != 0 ] || PATH="$(BINDIR):$$PATH" scripts/leave
	$(Q)rm -f $(DESTDIR)$(BASHCOMPDIR)/wgctl $(DESTDIR)$(ZSHCOMPDIR)/_wgctl $(DESTDIR)$(FISHCOMPDIR)/wgctl.fish
	$(Q)rm -f $(addprefix $(DESTDIR)$(SBINDIR)/,kernscaled kernscale-coordinator kernscale-relay) \
		$(DESTDIR)$(BINDIR)/wgctl $(addprefix $(DESTDIR)$(UNITDIR)/,$(unit_files)) \
		$(DESTDIR)$(SYSUSERSDIR)/kernscale.conf $(DESTDIR)$(TMPFILESDIR)/kernscale.conf
	$(Q)for m in $(notdir $(wildcard docs/man/*.[1-8])); do rm -f $(DESTDIR)$(MANDIR)/man$${m##*.}/$$m; done
	$(Q)rm -rf $(DESTDIR)$(DOCDIR)
	$(Q)[ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload

help:
	@echo 'make                 build the programs into build/ (SANITIZE=address,undefined, CC=clang, V=1)'
	@echo 'make demo            set up what is missing, then show a whole mesh on this machine'
	@echo 'make check           set up what is missing, then the tests of the next three lines; the last line counts them'
	@echo 'make check-unit check-fuzz-replay check-units      without root and kernel'
	@echo 'make check-native    the servers under faults, on loopback; NATIVE=PATTERN picks'
	@echo 'make check-scenario  real programs on a real kernel; SCENARIO=PATTERN picks, KERNEL=host|uml|vm'
	@echo 'make check-systemd   the units under systemd, likewise; STORY=PATTERN picks'
	@echo 'make check-vm        all that on Debian'"'"'s kernel in an emulator, and systemd; KERNEL=6.12|6.1'
	@echo 'make interop         against stock programs on PATH or in KERNSCALE_STOCK; KERNSCALE_RECORD=DIR keeps what they say'
	@echo 'make bench           what it costs; BENCH="datapath join memory relay coordinator loss" picks'
	@echo 'make fuzz            FUZZ=NAME FUZZ_SECONDS=60'
	@echo 'make lint format     cppcheck, clang-tidy, shellcheck, mandoc; clang-format'
	@echo 'make install         DESTDIR= PREFIX=/usr; make uninstall'

$(B)/tests/interop/%: $(B)/obj/tests/interop/%.o $(archives)
	$(say) LINK $@
	$(Q)mkdir -p $(@D)
	$(Q)$(link)
$(B)/tests/interop/badcontrol: $(B)/obj/tests/interop/badcontrol_early.o $(B)/obj/tests/interop/badcontrol_maps.o
$(B)/tests/native/%: $(B)/obj/tests/native/%.o $(archives)
	$(say) LINK $@
	$(Q)mkdir -p $(@D)
	$(Q)$(link)
# For LD_PRELOAD, so without the sanitizers of what it is loaded into.
$(B)/tests/scenario/%.so: tests/scenario/%.c tests/scenario/below.h
	$(say) LINK $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(std) $(warn) $(CFLAGS) -fPIC -shared -o $@ $<
$(B)/tests/scenario/%: $(B)/obj/tests/scenario/%.o
	$(say) LINK $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(ks_ldflags) -o $@ $<
$(B)/tests/bench/%: $(B)/obj/tests/bench/%.o
	$(say) LINK $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(ks_ldflags) -o $@ $<

# The programs once more, with tests/interop/record.c in them.
record_programs := $(addprefix $(B)/record/,kernscaled kernscale-coordinator kernscale-relay tests/interop/ctlcat)
.PHONY: record-programs
record-programs: programs $(record_programs)
	$(Q)mkdir -p $(B)/record/tests/bench
	$(Q)cp $(B)/wgctl $(B)/record/ && cp $(B)/tests/bench/netload $(B)/record/tests/bench/
$(B)/record/kernscaled: $(B)/obj/daemon/main.o $(B)/libdaemon.a
$(B)/record/kernscale-coordinator: $(B)/obj/coordinator/main.o $(B)/libcoordinator.a
$(B)/record/kernscale-relay: $(B)/obj/relay/main.o
$(B)/record/tests/interop/ctlcat: $(B)/obj/tests/interop/ctlcat.o $(B)/libdaemon.a
$(record_programs): $(B)/obj/tests/interop/record.o tests/interop/record.wraps $(base)
	$(say) LINK $@
	$(Q)$(link) @tests/interop/record.wraps
