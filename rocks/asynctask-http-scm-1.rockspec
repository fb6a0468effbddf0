-- The second rock: the C parts of asynctask.http, which need libraries of others: the client (libcurl), the server's
-- parser (http-parser) and WebSockets (wslay). Their Lua files are in the first rock, which works without this one.
rockspec_format = "3.0"
package = "asynctask-http"
version = "scm-1"

source = {
  url = "git+https://github.com/asynctask/asynctask.git",
}

description = {
  summary = "HTTP for asynctask: client, server and WebSockets",
  detailed = [[
What `require "asynctask.http"` needs beside the rock asynctask: an HTTP client on libcurl's multi interface (HTTP/2,
TLS, compression, cookies, proxies), the parser of the HTTP server, and WebSockets. Everything runs on the event loop of
the Lua state, without threads.]],
  license = "MIT",
  homepage = "https://github.com/asynctask/asynctask",
  issues_url = "https://github.com/asynctask/asynctask/issues",
  maintainer = "asynctask contributors",
  labels = { "async", "http", "client", "server", "websocket" },
}

supported_platforms = { "unix" }

dependencies = {
  "lua ~> 5.4",
  "asynctask",
}

external_dependencies = {
  UV = { header = "uv.h", library = "uv" },
  CURL = { library = "curl" }, -- its header may lie in a directory that the compiler knows and LuaRocks does not
  HTTP_PARSER = { header = "http_parser.h", library = "http_parser" },
  WSLAY = { header = "wslay/wslay.h", library = "wslay" },
}

build = {
  type = "builtin",
  modules = {
    ["asynctask.curl"] = {
      sources = {
        "csrc/ext/curl/engine.c",
        "csrc/ext/curl/failure.c",
        "csrc/ext/curl/module.c",
        "csrc/ext/curl/options.c",
        "csrc/ext/curl/receive.c",
        "csrc/ext/curl/send.c",
        "csrc/ext/curl/transfer.c",
        "csrc/ext/curl/url.c",
      },
      defines = { "_GNU_SOURCE=" },
      incdirs = { "csrc", "csrc/include", "$(UV_INCDIR)" },
      libdirs = { "$(UV_LIBDIR)", "$(CURL_LIBDIR)" },
      libraries = { "curl", "uv", "dl" },
    },
    ["asynctask.http1"] = {
      sources = {
        "csrc/ext/http1/chunks.c",
        "csrc/ext/http1/fields.c",
        "csrc/ext/http1/head.c",
        "csrc/ext/http1/module.c",
        "csrc/ext/http1/parser.c",
        "csrc/ext/http1/request.c",
        "csrc/ext/http1/response.c",
      },
      defines = { "_GNU_SOURCE=" },
      incdirs = { "csrc", "csrc/include", "$(UV_INCDIR)", "$(HTTP_PARSER_INCDIR)" },
      libdirs = { "$(UV_LIBDIR)", "$(HTTP_PARSER_LIBDIR)" },
      libraries = { "http_parser", "uv" },
    },
    ["asynctask.wslay"] = {
      sources = {
        "csrc/ext/wslay/handshake.c",
        "csrc/ext/wslay/module.c",
        "csrc/ext/wslay/session.c",
      },
      defines = { "_GNU_SOURCE=" },
      incdirs = { "csrc", "csrc/include", "$(UV_INCDIR)", "$(WSLAY_INCDIR)" },
      libdirs = { "$(UV_LIBDIR)", "$(WSLAY_LIBDIR)" },
      libraries = { "wslay", "uv" },
    },
  },
}

test = {
  type = "command",
  command = "make test",
}
