-- native.lua - the C part of the client (csrc/ext/curl), or a clear error where it was not built.

local found, curl = pcall(require, "asynctask.curl")
if not found then
  error("asynctask.http's client needs libcurl 7.80 or newer: install it (Debian: libcurl4-openssl-dev; pkg-config: " ..
    "libcurl) and build asynctask again, or install the rock asynctask-http\n" .. tostring(curl), 0)
end

---@class asynctask.curl
---@field client fun(options: table): userdata an engine with connections of its own
---@field url fun(text: string, base?: string): table?, string? a URL in parts, resolved against the base
---@field version fun(): string, table of libcurl, and what it was built with
return curl
