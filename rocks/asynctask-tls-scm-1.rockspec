-- The rock of what asynctask.tls needs in C: asynctask.openssl, on OpenSSL. Its Lua files are in the rock asynctask.
-- spec/host/rockspec_spec.lua compares the list below with the files in csrc/ext/openssl.
rockspec_format = "3.0"
package = "asynctask-tls"
version = "scm-1"

source = {
  url = "git+https://github.com/asynctask/asynctask.git",
}

description = {
  summary = "TLS for asynctask: encrypted streams on OpenSSL",
  detailed = [[
The C part of asynctask.tls: TLS 1.2 and 1.3 on OpenSSL, as a state machine between buffers. With it,
require "asynctask.tls" encrypts the streams of asynctask.net, or any others.]],
  license = "MIT",
  homepage = "https://github.com/asynctask/asynctask",
  issues_url = "https://github.com/asynctask/asynctask/issues",
  maintainer = "asynctask contributors",
  labels = { "async", "network", "tls", "ssl", "openssl" },
}

supported_platforms = { "unix" }

dependencies = {
  "lua ~> 5.4",
  "asynctask",
}

external_dependencies = {
  OPENSSL = { header = "openssl/ssl.h", library = "ssl" },
  CRYPTO = { header = "openssl/crypto.h", library = "crypto" },
}

build = {
  type = "builtin",
  modules = {
    ["asynctask.openssl"] = {
      sources = {
        "csrc/ext/openssl/certificate.c",
        "csrc/ext/openssl/connection.c",
        "csrc/ext/openssl/context.c",
        "csrc/ext/openssl/failure.c",
        "csrc/ext/openssl/module.c",
        "csrc/ext/openssl/sessions.c",
      },
      defines = { "_GNU_SOURCE=" },
      incdirs = { "csrc", "csrc/include", "$(OPENSSL_INCDIR)" },
      libdirs = { "$(OPENSSL_LIBDIR)", "$(CRYPTO_LIBDIR)" },
      libraries = { "ssl", "crypto" },
    },
  },
}
