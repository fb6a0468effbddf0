-- native.lua - the C part of TLS (csrc/ext/openssl), or a clear error where it was not built.

local found, openssl = pcall(require, "asynctask.openssl")
if not found then
  error("asynctask.tls needs OpenSSL: install libssl-dev (Debian's name; pkg-config: openssl) and build asynctask "
    .. "again, or install the rock asynctask-tls\n" .. tostring(openssl), 0)
end

---What the world refuses is nil, message, reason, kind ("protocol", "certificate", "memory").
---@class asynctask.openssl
---@field context fun(server: boolean): asynctask.openssl.Context
---@field library string name and version
return openssl

---@class asynctask.openssl.Context: userdata
---@field certificate fun(self, pem: string): true?, string?, string?, string?
---@field key fun(self, pem: string, password?: string): true?, string?, string?, string?
---@field trust fun(self, pem: string): true?, string?, string?, string?
---@field trust_directory fun(self, path: string): true?, string?, string?, string?
---@field trust_system fun(self): true?, string?, string?, string?
---@field versions fun(self, lowest?: string, highest?: string): true?, string?, string?, string?
---@field ciphers fun(self, list: string): true?, string?, string?, string?
---@field ciphersuites fun(self, list: string): true?, string?, string?, string?
---@field alpn fun(self, names: string): true?, string?, string?, string?
---@field ask fun(self, must: boolean)
---@field tickets fun(self, keys: string): true?, string?, string?, string?
---@field ticket_keys fun(self): string?, string?, string?, string?
---@field no_sessions fun(self)
---@field name fun(self, name: string, other: asynctask.openssl.Context): true?, string?, string?, string?
---@field sessions fun(self): integer
---@field client fun(self, name: string?, verify: boolean, key?: string, alpn?: string): asynctask.openssl.Connection?
---@field server fun(self): asynctask.openssl.Connection?

---@class asynctask.openssl.Connection: userdata
---@field handshake fun(self, bytes?: string): boolean?, string?, string?, string?
---@field receive fun(self, bytes: string): string?, "open"|"more"|"closed"|"failed", string?, string?, string?
---@field send fun(self, bytes: string, first?: integer, last?: integer): string?, string?, string?, string?
---@field output fun(self): string?
---@field shutdown fun(self): string?
---@field alpn fun(self): string?
---@field version fun(self): string
---@field cipher fun(self): string
---@field session_reused fun(self): boolean
---@field server_name fun(self): string?
---@field peer_certificate fun(self): table?
