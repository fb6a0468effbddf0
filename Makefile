# Builds, tests and installs asynctask for people who develop it or embed it; LuaRocks does not use
# this file (see asynctask-scm-1.rockspec). `make help` lists the targets.
#
# BUILD names the directory that everything is built in, so that several builds live side by side:
#     make BUILD=/tmp/mine test
# No target installs a package; when something is missing, it says so and names ./bootstrap.

VERSION := 0.2.0
BUILD   := build
PREFIX  := /usr/local
DESTDIR :=
DIR     :=
FILES   :=
V       :=

# ---- tools -----------------------------------------------------------------------------------

ifeq ($(origin CC),default)
CC := gcc
endif
INSTALL    ?= install
OBJCOPY    ?= objcopy
PKG_CONFIG ?= pkg-config
LUACHECK   ?= luacheck
VALGRIND   ?= valgrind
CLANG      ?= clang
GCC        ?= gcc

# lua5.4 where it has that name, else `lua` when it is a 5.4.
ifeq ($(origin LUA),undefined)
LUA := $(shell if command -v lua5.4 >/dev/null 2>&1; then echo lua5.4; \
         elif lua -v 2>&1 | grep -q '^Lua 5\.4'; then echo lua; else echo lua5.4; fi)
endif

# Headers: pkg-config under the names that distributions use, else the usual directories.
ifeq ($(origin LUA_CFLAGS),undefined)
LUA_CFLAGS := $(shell for p in lua5.4 lua-5.4 lua54 lua; do \
         if $(PKG_CONFIG) --atleast-version=5.4 --max-version=5.4.99 $$p 2>/dev/null; then \
           $(PKG_CONFIG) --cflags $$p; exit; fi; done; \
         for d in /usr/include/lua5.4 /usr/include/lua-5.4 /usr/local/include/lua5.4 \
           /usr/local/include/lua /opt/homebrew/include/lua5.4 /usr/local/include /usr/include; do \
           if [ -f $$d/lua.h ]; then echo -I$$d; exit; fi; done)
endif
ifeq ($(origin UV_CFLAGS),undefined)
UV_CFLAGS := $(shell $(PKG_CONFIG) --cflags libuv 2>/dev/null)
endif
ifeq ($(origin UV_LIBS),undefined)
UV_LIBS := $(shell $(PKG_CONFIG) --libs-only-L libuv 2>/dev/null) -luv
endif

# Programs that embed Lua link with it.
ifeq ($(origin LUA_LIBS),undefined)
LUA_LIBS := $(shell for p in lua5.4 lua-5.4 lua54 lua; do \
         if $(PKG_CONFIG) --atleast-version=5.4 --max-version=5.4.99 $$p 2>/dev/null; then \
           $(PKG_CONFIG) --libs $$p; exit; fi; done; echo -llua5.4)
endif

# ---- flags -----------------------------------------------------------------------------------

OPT       := -O2 -g
WERROR    :=
SANITIZE  :=
WARNINGS  := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
             -Wpointer-arith -Wundef -Wvla -Wwrite-strings -Wformat=2 -Wredundant-decls \
             -Wnested-externs -Wimplicit-fallthrough -Wdouble-promotion
CFLAGS    :=
LDFLAGS   :=

SAN_FLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all \
             -fno-omit-frame-pointer -DAT_SANITIZE)
ALL_CFLAGS := -std=gnu11 $(OPT) -fPIC -fvisibility=hidden -pthread $(WARNINGS) $(WERROR) $(SAN_FLAGS) \
              -D_GNU_SOURCE= -Icsrc -Icsrc/include $(LUA_CFLAGS) $(UV_CFLAGS) $(CFLAGS)

ifeq ($(shell uname -s),Darwin)
SHARED := -bundle -undefined dynamic_lookup
LIBS   := $(UV_LIBS) -lpthread
else
SHARED := -shared -Wl,-Bsymbolic
LIBS   := $(UV_LIBS) -lpthread -ldl
endif

# ---- files -----------------------------------------------------------------------------------

CORE    := $(BUILD)/asynctask/core.so
ARCHIVE := $(BUILD)/libasynctask.a
SOURCES := $(sort $(wildcard csrc/*/*.c))
OBJECTS := $(SOURCES:csrc/%.c=$(BUILD)/obj/%.o)
CONFIG  := $(BUILD)/config
LUAFILES := $(shell cd lua 2>/dev/null && find asynctask -name '*.lua' | LC_ALL=C sort)

# Modules on other people's libraries, one shared object for each folder of csrc/ext. Each is built where
# its library is found; `make` says which are left out. They use asynctask.h and nothing else of ours.
# $(call probe,pkg-config's names,header,-l flags): flags of the library, headers | libraries, or nothing.
EXT_NAMES := curl http1 openssl wslay
HASH      := \#
probe = $(shell for p in $(1); do if $(PKG_CONFIG) --exists $$p 2>/dev/null; then \
          echo "$$($(PKG_CONFIG) --cflags $$p) | $$($(PKG_CONFIG) --libs $$p)"; exit; fi; done; \
          echo '$(HASH)include <$(2)>' | $(CC) $(CFLAGS) -fsyntax-only -x c - >/dev/null 2>&1 && echo '| $(3)')
ifeq ($(origin EXT_curl),undefined)
EXT_curl    := $(call probe,libcurl,curl/curl.h,-lcurl)
endif
ifeq ($(origin EXT_http1),undefined)
EXT_http1   := $(call probe,libllhttp llhttp,llhttp.h,-lllhttp)
ifneq ($(EXT_http1),)
EXT_http1   := -DAT_LLHTTP $(EXT_http1)
else
EXT_http1   := $(call probe,http_parser,http_parser.h,-lhttp_parser)
endif
endif
ifeq ($(origin EXT_openssl),undefined)
EXT_openssl := $(call probe,openssl,openssl/ssl.h,-lssl -lcrypto)
endif
ifeq ($(origin EXT_wslay),undefined)
EXT_wslay   := $(call probe,libwslay,wslay/wslay.h,-lwslay)
endif
EXT_LEFT := $(strip $(foreach e,$(EXT_NAMES),$(if $(EXT_$(e)),,$(e))))
EXTS     := $(foreach e,$(EXT_NAMES),$(if $(and $(EXT_$(e)),$(wildcard csrc/ext/$(e)/*.c)),$(e)))
EXT_SOS  := $(EXTS:%=$(BUILD)/asynctask/%.so)
EXT_OBJS := $(foreach e,$(EXTS),$(patsubst csrc/%.c,$(BUILD)/obj/%.o,$(wildcard csrc/ext/$(e)/*.c)))

HERE    := $(CURDIR)
OUT     := $(abspath $(BUILD))
# A suite that hangs ends after LIMIT seconds.
LIMIT   := 1200
BOUNDED := $(shell command -v timeout >/dev/null 2>&1 && echo timeout --foreground -k 10 $(LIMIT))
PATHS   := LUA_PATH='$(HERE)/lua/?.lua;$(HERE)/lua/?/init.lua;'"$${LUA_PATH:-;}" \
           LUA_CPATH='$(OUT)/?.so;'"$${LUA_CPATH:-;}"
# Lua prefers the variables with the version in their name: they must not hide ours.
RUN     := unset LUA_PATH_5_4 LUA_CPATH_5_4; $(PATHS)

ifneq ($(V),)
Q :=
else
Q := @
endif
ifneq (,$(findstring s,$(firstword -$(MAKEFLAGS))))
say =
else ifneq ($(V),)
say =
else
say = @printf '  %-8s %s\n' '$(1)' '$(2)'
endif

# $(call need,command,what it is,bootstrap's target)
need = @command -v $(firstword $(1)) >/dev/null 2>&1 || { \
       echo "asynctask: $(2) is missing ($(firstword $(1))): run ./bootstrap $(3)" >&2; exit 1; }
need_busted = @$(LUA) -e 'require "busted.runner"' >/dev/null 2>&1 || { \
       echo "asynctask: busted for Lua 5.4 is missing: run ./bootstrap $(1)" >&2; exit 1; }

.PHONY: all env test demo install uninstall lint lint-c check-tools asan tsan fuzz valgrind bench bench-quick bench-kernel bench-growth guard reliability io-faults perturb models bench-files bench-parallel bench-echo bench-http soak-net soak-http ext bench-http-client coverage clean help FORCE
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(CORE) $(ARCHIVE) $(EXT_SOS) ## build the modules into BUILD (build/)

ext: all ## the same; `./bootstrap ext` installs the libraries of the optional modules before
	$(Q)echo 'optional modules: $(if $(EXTS),$(EXTS),none)$(if $(EXT_LEFT), (left out: $(EXT_LEFT)))'

$(CORE): $(OBJECTS) $(CONFIG)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(SHARED) -pthread $(SAN_FLAGS) $(LDFLAGS) -o $@ $(OBJECTS) $(LIBS)

# The archive holds one object, in which only the public functions (asynctask.h) are global, so that no name of
# ours can be one of the host's. It has the Lua files in it, too. Where there is no objcopy our other names
# stay hidden, but global: they begin with at_.
$(BUILD)/bundle.c: tools/bundle.lua $(addprefix lua/,$(LUAFILES)) $(CONFIG)
	$(call say,BUNDLE,$@)
	$(Q)$(LUA) tools/bundle.lua $@ lua $(LUAFILES)

$(BUILD)/obj/bundle.o: $(BUILD)/bundle.c csrc/host/bundle.h $(CONFIG)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(ARCHIVE): $(OBJECTS) $(BUILD)/obj/bundle.o $(CONFIG)
	$(call say,AR,$@)
	$(Q)$(CC) -r -nostdlib -o $(BUILD)/obj/asynctask.o $(OBJECTS) $(BUILD)/obj/bundle.o
ifneq ($(shell uname -s),Darwin)
	$(Q)if command -v $(firstword $(OBJCOPY)) >/dev/null 2>&1; then \
	  $(OBJCOPY) --localize-hidden $(BUILD)/obj/asynctask.o; else \
	  echo "asynctask: no $(firstword $(OBJCOPY)): the inner names of libasynctask.a (at_*) stay global" >&2; fi
endif
	$(Q)rm -f $@ && $(AR) rcs $@ $(BUILD)/obj/asynctask.o

$(BUILD)/obj/%.o: csrc/%.c $(CONFIG)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

# The optional modules: $(BUILD)/asynctask/curl.so from csrc/ext/curl, and so on.
define ext_rules
$(BUILD)/asynctask/$(1).so: $$(patsubst csrc/%.c,$(BUILD)/obj/%.o,$$(wildcard csrc/ext/$(1)/*.c)) $(CONFIG)
	$$(call say,LINK,$$@)
	@mkdir -p $$(@D)
	$$(Q)$(CC) $(SHARED) -pthread $(SAN_FLAGS) $(LDFLAGS) -o $$@ $$(filter %.o,$$^) \
	  $(shell echo '$(EXT_$(1))' | sed 's/.*|//') $(LIBS)
$(BUILD)/obj/ext/$(1)/%.o: ALL_CFLAGS += $(shell echo '$(EXT_$(1))' | sed 's/|.*//')
endef
$(foreach e,$(EXTS),$(eval $(call ext_rules,$(e))))

-include $(OBJECTS:.o=.d) $(EXT_OBJS:.o=.d)

# What the objects were built with: they are built again when it changes. Looks for the compiler and
# the headers first.
CONFIG_TEXT := $(subst ','\'',$(CC) $(ALL_CFLAGS) | $(SHARED) $(LDFLAGS) $(LIBS) | $(SOURCES) | $(foreach e,$(EXT_NAMES),$(EXT_$(e))))
$(CONFIG): FORCE
	@if printf '%s\n' '$(CONFIG_TEXT)' | cmp -s - $@; then exit 0; fi; \
	command -v $(firstword $(CC)) >/dev/null 2>&1 || { \
	  echo "asynctask: a C compiler is missing ($(firstword $(CC))): run ./bootstrap" >&2; exit 1; }; \
	mkdir -p $(@D); \
	try() { printf '%s\n' "$$1" | $(CC) -std=gnu11 -fsyntax-only $(LUA_CFLAGS) $(UV_CFLAGS) $(CFLAGS) \
	  -x c - >/dev/null 2>&1; }; \
	try '#include <stdlib.h>' || { \
	  echo "asynctask: the C library's headers are missing: run ./bootstrap" >&2; exit 1; }; \
	try '#include <lua.h>' || { echo "asynctask: Lua's headers are missing (lua.h): run ./bootstrap" >&2; exit 1; }; \
	printf '#include <lua.h>\n#if LUA_VERSION_NUM != 504 || LUA_VERSION_RELEASE_NUM < 50403\n#error\n#endif\n' | \
	  $(CC) -fsyntax-only $(LUA_CFLAGS) $(CFLAGS) -x c - >/dev/null 2>&1 || { \
	  echo "asynctask: the lua.h that was found is not Lua 5.4.3 or a later 5.4: set LUA_CFLAGS or run ./bootstrap" >&2; exit 1; }; \
	try '#include <uv.h>' || { echo "asynctask: libuv's headers are missing (uv.h): run ./bootstrap" >&2; exit 1; }; \
	$(if $(EXT_LEFT),echo "asynctask: built without $(EXT_LEFT) (libraries not found; ./bootstrap ext installs them)" >&2;) \
	printf '%s\n' '$(CONFIG_TEXT)' > $@

FORCE:

# ---- running ---------------------------------------------------------------------------------

env: all ## print the variables with which Lua finds this checkout: eval "$(make -s env)"
	@printf '%s\n' "$${LUA_PATH_5_4+unset LUA_PATH_5_4}" "$${LUA_CPATH_5_4+unset LUA_CPATH_5_4}" | sed '/^$$/d'
	@printf '%s\n' "export LUA_PATH='$(HERE)/lua/?.lua;$(HERE)/lua/?/init.lua;'\"\$${LUA_PATH:-;}\" \
LUA_CPATH='$(OUT)/?.so;'\"\$${LUA_CPATH:-;}\""

test: all ## run the specs; FILES= chooses some
	$(call need,$(LUA),Lua 5.4,test)
	$(call need_busted,test)
	$(Q)ASYNCTASK_BUILD='$(OUT)' $(BOUNDED) $(LUA) spec/run.lua $(FILES)

demo: all ## run the tour; DIR= chooses the directory that it reads
	$(call need,$(LUA),Lua 5.4,demo)
	$(Q)$(RUN) $(LUA) examples/tour.lua $(DIR)

bench: all ## run all benchmarks beside the peers that are installed; table, JSON and plot in BUILD/bench
	$(call need,$(LUA),Lua 5.4,bench)
	$(Q)$(RUN) $(LUA) bench/run.lua $(OUT)/bench $(ARGS)

bench-quick: all ## the same in two minutes: fewer rounds, smaller files
	$(call need,$(LUA),Lua 5.4,bench)
	$(Q)ASYNCTASK_BENCH_QUICK=1; export ASYNCTASK_BENCH_QUICK; $(RUN) $(LUA) bench/run.lua $(OUT)/bench $(ARGS)

bench-kernel: all ## measure tasks and timers beside plain coroutines, luv, cqueues, node, Go, asyncio; ARGS= chooses
	$(call need,$(LUA),Lua 5.4,bench)
	$(Q)$(RUN) $(LUA) bench/kernel.lua $(ARGS)

bench-growth: all ## measure how costs grow, up to a million tasks; fails beyond n log n; ARGS= chooses (pattern)
	$(call need,$(LUA),Lua 5.4,bench)
	$(Q)$(RUN) $(LUA) bench/growth.lua $(ARGS)

guard: all ## count the instructions of the hottest paths (callgrind) beside the committed figures
	$(call need,$(LUA),Lua 5.4,guard)
	$(call need,$(VALGRIND),valgrind,guard)
	$(Q)$(RUN) $(LUA) bench/guard.lua $(ARGS)

bench-files: all ## measure files beside io, luv, node and C; ARGS= chooses (pattern scale)
	$(call need,$(LUA),Lua 5.4,bench)
	$(Q)$(RUN) $(LUA) bench/files.lua $(ARGS)

bench-parallel: all ## measure jobs beside luv, node, Go and two processes; ARGS= chooses (pattern)
	$(call need,$(LUA),Lua 5.4,bench)
	$(Q)$(RUN) $(LUA) bench/parallel.lua $(ARGS)

bench-echo: all ## measure TCP echo beside C on libuv, luv, node and Go; ARGS= chooses (seconds rounds)
	$(call need,$(LUA),Lua 5.4,bench)
	@mkdir -p $(BUILD)/echo
	$(Q)$(RUN) $(LUA) bench/echo/run.lua $(OUT)/echo $(ARGS)

bench-http-client: all ## measure the HTTP client beside curl, node and aiohttp; ARGS= chooses (count rounds)
	$(call need,$(LUA),Lua 5.4,bench)
	$(Q)$(RUN) $(LUA) bench/http_client.lua $(OUT)/http_client $(ARGS)

bench-http: all ## measure an HTTP hello with wrk beside Go, node and nginx; ARGS= chooses (seconds rounds)
	$(call need,$(LUA),Lua 5.4,bench)
	@mkdir -p $(BUILD)/http
	$(Q)$(RUN) $(LUA) bench/http/run.lua $(OUT)/http $(ARGS)

soak-net: all ## connect, echo and close a million times; ARGS= chooses how often
	$(call need,$(LUA),Lua 5.4,test)
	$(Q)$(RUN) $(LUA) bench/echo/soak.lua $(ARGS)

soak-http: all ## serve ten million HTTP requests; ARGS= chooses how many
	$(call need,$(LUA),Lua 5.4,test)
	$(Q)$(RUN) $(LUA) bench/http/soak.lua $(ARGS)

# ---- sanitizers ------------------------------------------------------------------------------
# The stock interpreter loads the sanitizer's runtime with LD_PRELOAD, and spec/support/preload.c, which
# says why. spec/support/child.lua hands ASYNCTASK_PRELOAD on to the Lua programs that specs start.

# $(call san_make,directory below BUILD,sanitizers): make splits arguments at commas, so a variable.
ASAN      := address,undefined
TSAN      := thread
san_make  = +$(Q)$(MAKE) --no-print-directory all BUILD=$(BUILD)/$(1) CC=$(GCC) SANITIZE=$(2) OPT='-O1 -g'
preload   = $(Q)$(GCC) -Wall -Wextra -O1 -shared -fPIC -o $(BUILD)/$(1)/preload.so spec/support/preload.c
# $(call san_run,directory below BUILD,runtime,variables)
san_run   = $(Q)P="$$($(GCC) -print-file-name=$(2)) $(OUT)/$(1)/preload.so"; \
            $(BOUNDED) env LD_PRELOAD="$$P" ASYNCTASK_PRELOAD="$$P" $(3) ASYNCTASK_SANITIZER=$(1) \
            ASYNCTASK_BUILD='$(OUT)/$(1)' $(LUA) spec/run.lua $(FILES)
ASAN_ENV  := ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:handle_abort=1 \
             UBSAN_OPTIONS=print_stacktrace=1
TSAN_ENV  := TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:exitcode=66

asan: ## run the specs under AddressSanitizer and UBSan, leaks included; FILES= chooses some
	$(call need,$(GCC),gcc,asan)
	$(call need,$(LUA),Lua 5.4,asan)
	$(call need_busted,asan)
	$(call san_make,asan,$(ASAN))
	$(call preload,asan)
	$(call san_run,asan,libasan.so,$(ASAN_ENV))

tsan: ## run the specs under ThreadSanitizer; FILES= chooses some
	$(call need,$(GCC),gcc,tsan)
	$(call need,$(LUA),Lua 5.4,tsan)
	$(call need_busted,tsan)
	$(call san_make,tsan,$(TSAN))
	$(call preload,tsan)
	$(call san_run,tsan,libtsan.so,$(TSAN_ENV))

# A clang without libFuzzer's runtime says so at the link. FUZZ_SECONDS bounds the run.
FUZZ_SECONDS := 20
fuzz: ## fuzz the codec for FUZZ_SECONDS (clang, libFuzzer)
	$(call need,$(CLANG),clang,fuzz)
	+$(Q)$(MAKE) --no-print-directory all BUILD=$(BUILD)/fuzz CC=$(CLANG) OPT='-O1 -g' \
	  SAN_FLAGS='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer'
	$(Q)$(CLANG) -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -pthread -D_GNU_SOURCE= \
	  -Icsrc -Icsrc/include $(LUA_CFLAGS) $(UV_CFLAGS) spec/c/fuzz_codec.c $(BUILD)/fuzz/obj/[bchip]*/*.o \
	  $(LUA_LIBS) $(LIBS) -lm -o $(BUILD)/fuzz/fuzz_codec
	$(Q)mkdir -p $(BUILD)/fuzz/corpus
	$(Q)$(BUILD)/fuzz/fuzz_codec -max_total_time=$(FUZZ_SECONDS) -max_len=2000 -timeout=10 -rss_limit_mb=3000 \
	  -print_final_stats=1 -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/corpus

io-faults: all ## let every system call fail once, in every way; ARGS= chooses (most pattern)
	$(call need,$(GCC),gcc,test)
	$(Q)$(GCC) -Wall -Wextra -O1 -shared -fPIC $(LUA_CFLAGS) -o $(BUILD)/faultio.so spec/support/faultio.c -ldl
	$(Q)$(RUN) LD_PRELOAD=$(OUT)/faultio.so $(LUA) spec/reliability/io_faults.lua $(OUT)/faultio.so $(ARGS)

SEEDS := 1000
perturb: all ## shake the order of what threads do, with SEEDS seeds
	$(call need,$(GCC),gcc,test)
	$(Q)$(GCC) -Wall -Wextra -O1 -shared -fPIC -o $(BUILD)/perturb.so spec/support/perturb.c -ldl
	$(Q)$(subst ; ,; export ,$(RUN)); for seed in $$(seq 1 $(SEEDS)); do \
	  LD_PRELOAD=$(OUT)/perturb.so PERTURB_SEED=$$seed timeout 60 $(LUA) spec/reliability/threads.lua >$(BUILD)/perturb.out 2>&1 || \
	    { cat $(BUILD)/perturb.out; echo "failed with seed $$seed"; exit 1; }; done; echo "$(SEEDS) seeds passed"

reliability: io-faults models perturb bench-growth fuzz tsan valgrind ## all of what docs/reliability.md tells, in full; an hour

models: ## check the models of threads in spec/models with spin
	$(call need,spin,spin,test)
	$(Q)spec/models/run.sh $(BUILD)/models

VALGRIND_FILES = spec/support/short.lua
valgrind: all ## run a short program under valgrind; a definite leak is an error
	$(call need,$(VALGRIND),valgrind,valgrind)
	$(call need,$(LUA),Lua 5.4,valgrind)
	$(Q)$(RUN) $(VALGRIND) -q --leak-check=full --errors-for-leak-kinds=definite \
	  --show-leak-kinds=definite --error-exitcode=9 --keep-debuginfo=yes --num-callers=30 \
	  $(LUA) $(VALGRIND_FILES)

# ---- coverage --------------------------------------------------------------------------------
# The compiler is a script, first in PATH, too: the hosts that specs build are counted with the rest.

COVERED := $(OUT)/coverage
coverage: ## what of our C the suite runs, lines and branches (gcov); FILES= chooses specs, SHOW= files to list
	$(call need,$(GCC),gcc,coverage)
	$(call need,gcov,gcov,coverage)
	$(call need,$(LUA),Lua 5.4,coverage)
	$(call need_busted,coverage)
	$(Q)mkdir -p $(COVERED)/bin && cp tools/coverage_cc $(COVERED)/bin/gcc
	+$(Q)ASYNCTASK_BUILD=$(COVERED) COVERAGE_GCC="$$(command -v $(GCC))" \
	  $(MAKE) --no-print-directory all BUILD=$(COVERED) CC=$(COVERED)/bin/gcc
	$(Q)find $(COVERED)/obj -name '*.gcda' -delete
	$(Q)status=0; ASYNCTASK_BUILD=$(COVERED) COVERAGE_GCC="$$(command -v $(GCC))" CC=$(COVERED)/bin/gcc \
	  PATH="$(COVERED)/bin:$$PATH" $(BOUNDED) $(LUA) spec/run.lua $(FILES) || status=$$?; \
	  $(LUA) tools/coverage.lua $(COVERED) $(SHOW) && exit $$status

# ---- lint ------------------------------------------------------------------------------------

lint: check-tools lint-c ## luacheck, floors, headers, annotations, and both compilers with -Werror

check-tools: all
	$(call need,$(LUA),Lua 5.4,lint)
	$(call need,$(LUACHECK),luacheck,lint)
	$(Q)$(LUACHECK) -q --no-cache .
	$(Q)$(LUA) tools/floors.lua
	$(Q)$(RUN) $(LUA) tools/meta.lua

lint-c:
	$(call need,$(GCC),gcc,lint)
	$(call need,$(CLANG),clang,lint)
	+$(Q)$(MAKE) --no-print-directory all BUILD=$(BUILD)/lint/gcc CC=$(GCC) WERROR=-Werror
	+$(Q)$(MAKE) --no-print-directory all BUILD=$(BUILD)/lint/clang CC=$(CLANG) WERROR=-Werror

# ---- installing ------------------------------------------------------------------------------

LUADIR  = $(PREFIX)/share/lua/5.4
CMODDIR = $(PREFIX)/lib/lua/5.4
LIBDIR  = $(PREFIX)/lib
INCDIR  = $(PREFIX)/include

# What asynctask.pc names: the packages of Lua and libuv where pkg-config knows them and their flags were not
# given to make, else the flags. The library is static: whoever links it links all that it needs.
ifeq ($(origin LUA_CFLAGS)$(origin LUA_LIBS),filefile)
PC_LUA = $(shell for p in lua5.4 lua-5.4 lua54 lua; do \
         if $(PKG_CONFIG) --atleast-version=5.4 --max-version=5.4.99 $$p 2>/dev/null; then echo $$p; exit; fi; done)
endif
ifeq ($(origin UV_CFLAGS)$(origin UV_LIBS),filefile)
PC_UV = $(shell if $(PKG_CONFIG) --exists libuv 2>/dev/null; then echo 'libuv >= 1.44'; fi)
endif
ifeq ($(shell uname -s),Darwin)
PC_LIBS := -lpthread
else
PC_LIBS := -pthread -ldl -lm
endif

install: all ## install below PREFIX (/usr/local); DESTDIR is put before it
	$(Q)for f in $(LUAFILES); do \
	  $(INSTALL) -d "$(DESTDIR)$(LUADIR)/$$(dirname $$f)" && \
	  $(INSTALL) -m 644 lua/$$f "$(DESTDIR)$(LUADIR)/$$f" || exit 1; done
	$(Q)$(INSTALL) -d "$(DESTDIR)$(CMODDIR)/asynctask" "$(DESTDIR)$(INCDIR)" "$(DESTDIR)$(LIBDIR)/pkgconfig"
	$(Q)$(INSTALL) -m 755 $(CORE) $(EXT_SOS) "$(DESTDIR)$(CMODDIR)/asynctask/"
	$(Q)$(INSTALL) -m 644 $(ARCHIVE) "$(DESTDIR)$(LIBDIR)/libasynctask.a"
	$(Q)$(INSTALL) -m 644 csrc/include/asynctask.h "$(DESTDIR)$(INCDIR)/asynctask.h"
	$(Q)printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' 'libdir=$${prefix}/lib' \
	  'luadir=$${prefix}/share/lua/5.4' 'cmoddir=$${prefix}/lib/lua/5.4' '' 'Name: asynctask' \
	  'Description: tasks for Lua 5.4: await files, sockets, timers and parallel jobs' \
	  'Version: $(VERSION)' 'Requires: $(strip $(PC_LUA) $(PC_UV))' \
	  'Cflags: $(strip -I"$${includedir}" $(if $(PC_LUA),,$(LUA_CFLAGS)) $(if $(PC_UV),,$(UV_CFLAGS)))' \
	  'Libs: $(strip -L"$${libdir}" -lasynctask $(if $(PC_LUA),,$(LUA_LIBS)) $(if $(PC_UV),,$(UV_LIBS)) \
	  $(PC_LIBS))' > "$(DESTDIR)$(LIBDIR)/pkgconfig/asynctask.pc"

uninstall: ## remove what install put there
	$(Q)rm -rf "$(DESTDIR)$(LUADIR)/asynctask" "$(DESTDIR)$(CMODDIR)/asynctask"
	$(Q)rm -f "$(DESTDIR)$(LIBDIR)/libasynctask.a" "$(DESTDIR)$(INCDIR)/asynctask.h" \
	  "$(DESTDIR)$(LIBDIR)/pkgconfig/asynctask.pc"

clean: ## remove what was built, LuaRocks' leftovers in the tree included
	$(Q)rm -rf $(BUILD)
	$(Q)rm -f csrc/*/*.o csrc/ext/*/*.o asynctask/*.so && rmdir asynctask 2>/dev/null || true

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 12
	@echo
	@echo 'BUILD=dir  CC=...  CFLAGS=...  LUA=...  LUA_CFLAGS=...  PREFIX=dir  DESTDIR=dir  V=1'
