-- context.lua - contexts: what many connections share. Options become a plain table (files are read into it), and
-- this becomes an SSL_CTX, once in each state that uses it: the plain table may travel to other threads.

local core = require "asynctask.core"
local check = require "asynctask.check"
local fs = require "asynctask.fs"
local openssl = require "asynctask.tls.native"
local failure = require "asynctask.tls.failure"

local await, start = core.await, core.start

local M = {}

---What connections share: certificates, trust, versions, a cache of sessions. Made by `tls.context`.
---@class asynctask.tls.Context
---@field private plain table
local Context = {}

local context_meta = { __name = "asynctask.tls.Context", __index = Context }

---@return boolean
function Context:is_server()
  return self.plain.server
end

---How many sessions a client keeps for resumption.
---@return integer
function Context:sessions()
  return M.native(self.plain):sessions()
end

function context_meta.__tostring(self)
  return ("asynctask.tls.Context (%s)"):format(self.plain.server and "server" or "client")
end

-- ---- options -------------------------------------------------------------------------------------

---@class asynctask.tls.context_options
---@field server? boolean a context for servers
---@field cert? string own certificate and, behind it, its chain: PEM text, or the path of a file
---@field key? string its key: PEM text, or a path
---@field password? string of the key
---@field ca? string|string[] certificates to trust (PEM text or paths), in place of the system's
---@field ca_dir? string directory of such, in the form of openssl-rehash(1)
---@field system_ca? boolean trust the system's, too; default: where neither `ca` nor `ca_dir` is given
---@field client_certificate? "request"|"require" server: clients are asked for a certificate, or must show one
---@field names? table<string, { cert: string, key: string, password?: string }> server: certificates by the name
---that clients ask for; "*.example.org" stands for one label
---@field alpn? string[] protocols, the best first (RFC 7301)
---@field min_version? "1.2"|"1.3" default "1.2"
---@field max_version? "1.2"|"1.3"
---@field ciphers? string of TLS 1.2, as openssl-ciphers(1) has it
---@field ciphersuites? string of TLS 1.3
---@field sessions? boolean false: no resumption

local function text(v)
  return type(v) == "string" and v ~= "", "PEM text or path"
end

local function texts(v)
  if type(v) ~= "table" then
    return text(v)
  end
  for i = 1, #v do
    if not text(v[i]) then
      return false, "list of PEM texts or paths"
    end
  end
  return #v > 0, "PEM text, path, or a list of these"
end

local function version(v)
  return v == "1.2" or v == "1.3", '"1.2" or "1.3"'
end

local function asking(v)
  return v == "request" or v == "require", '"request" or "require"'
end

function M.alpn(v)
  local what = "list of protocols (1 to 255 bytes each)"
  if type(v) ~= "table" or #v == 0 then
    return false, what
  end
  local total = 0
  for _, name in ipairs(v) do
    if type(name) ~= "string" or #name < 1 or #name > 255 then
      return false, what
    end
    total = total + #name + 1
  end
  return total < 65536, what
end

local function names(v)
  local what = "table of names with cert and key"
  if type(v) ~= "table" then
    return false, what
  end
  for name, entry in pairs(v) do
    if type(name) ~= "string" or name == "" or name:find("%z") or type(entry) ~= "table" or not text(entry.cert)
      or not text(entry.key) then
      return false, what
    end
  end
  return true, what
end

---Predicates of the options that make a context.
M.options = {
  server = check.boolean, cert = text, key = text, password = check.string, ca = texts, ca_dir = check.string,
  system_ca = check.boolean, client_certificate = asking, names = names, alpn = M.alpn, min_version = version,
  max_version = version, ciphers = check.string, ciphersuites = check.string, sessions = check.boolean,
}

---Checks options that belong together.
---@param opts table
---@param arg integer
---@param name string
function M.check(opts, arg, name)
  if (opts.cert == nil) ~= (opts.key == nil) then
    check.bad(arg, name, "options 'cert' and 'key' belong together")
  elseif opts.server and not opts.cert and not opts.names then
    check.bad(arg, name, "a server needs options 'cert' and 'key'")
  elseif opts.client_certificate and not (opts.ca or opts.ca_dir or opts.system_ca) then
    check.bad(arg, name, "option 'client_certificate' needs 'ca': whose certificates are accepted")
  elseif not opts.server and (opts.client_certificate or opts.names) then
    check.bad(arg, name, ("option '%s' is a server's"):format(opts.names and "names" or "client_certificate"))
  elseif opts.min_version == "1.3" and opts.max_version == "1.2" then
    check.bad(arg, name, "no version is allowed")
  end
end

-- ---- from options to a plain table -----------------------------------------------------------------

-- PEM text, and the path that it came from.
local function read(v)
  if v:find("-----BEGIN ", 1, true) then
    return v
  end
  return await(fs.read_file(v)), v
end

local function read_pair(opts)
  local pair = { password = opts.password }
  pair.cert, pair.cert_path = read(opts.cert)
  pair.key, pair.key_path = read(opts.key)
  return pair
end

local function wire(list)
  local parts = {}
  for i, name in ipairs(list) do
    parts[i] = string.pack("s1", name)
  end
  return table.concat(parts)
end

M.wire = wire

local function load(opts)
  local plain = {
    server = opts.server or false, trust = {}, trust_paths = {}, ca_dir = opts.ca_dir, system_ca = opts.system_ca,
    ask = opts.client_certificate, alpn = opts.alpn and wire(opts.alpn), names = {}, min = opts.min_version,
    max = opts.max_version, ciphers = opts.ciphers, ciphersuites = opts.ciphersuites,
    no_sessions = opts.sessions == false,
  }
  if opts.cert then
    plain.pair = read_pair(opts)
  end
  local ca = opts.ca or {}
  for i, v in ipairs(type(ca) == "table" and ca or { ca }) do
    plain.trust[i], plain.trust_paths[i] = read(v)
  end
  if plain.system_ca == nil then
    plain.system_ca = not (opts.server or opts.ca or opts.ca_dir)
  end
  for name, entry in pairs(opts.names or {}) do
    plain.names[#plain.names + 1] = { name = name, pair = read_pair(entry) }
  end
  return plain
end

-- ---- from a plain table to OpenSSL -----------------------------------------------------------------

local function must(option, path, ok, message, reason, kind)
  if ok then
    return ok
  elseif kind == "memory" then
    error(failure.of("context", message, reason, kind), 0)
  end
  error(failure.option(option, reason, path), 0)
end

local function use_pair(ctx, pair)
  must("cert", pair.cert_path, ctx:certificate(pair.cert))
  must("key", pair.key_path, ctx:key(pair.key, pair.password))
end

local function build(plain, pair)
  local ctx = must("server", nil, openssl.context(plain.server))
  if pair then
    use_pair(ctx, pair)
  end
  for i, pem in ipairs(plain.trust) do
    must("ca", plain.trust_paths[i], ctx:trust(pem))
  end
  if plain.ca_dir then
    must("ca_dir", plain.ca_dir, ctx:trust_directory(plain.ca_dir))
  end
  if plain.system_ca then
    must("system_ca", nil, ctx:trust_system())
  end
  if plain.min or plain.max then
    must("min_version", nil, ctx:versions(plain.min, plain.max))
  end
  if plain.ciphers then
    must("ciphers", nil, ctx:ciphers(plain.ciphers))
  end
  if plain.ciphersuites then
    must("ciphersuites", nil, ctx:ciphersuites(plain.ciphersuites))
  end
  if plain.alpn then
    must("alpn", nil, ctx:alpn(plain.alpn))
  end
  if plain.ask then
    ctx:ask(plain.ask == "require")
  end
  if plain.no_sessions then
    ctx:no_sessions()
  elseif plain.server then
    plain.ticket_keys = plain.ticket_keys or must("sessions", nil, ctx:ticket_keys())
    must("sessions", nil, ctx:tickets(plain.ticket_keys))
  end
  return ctx
end

-- plain table -> SSL_CTX of this state
local natives = setmetatable({}, { __mode = "k" })

---The SSL_CTX of a plain table; raises an error object where OpenSSL refuses something in it.
---@param plain table
---@return asynctask.openssl.Context
function M.native(plain)
  local ctx = natives[plain]
  if not ctx then
    ctx = build(plain, plain.pair)
    for _, entry in ipairs(plain.names) do
      must("names", nil, ctx:name(entry.name, build(plain, entry.pair)))
    end
    natives[plain] = ctx
  end
  return ctx
end

-- ---- making ----------------------------------------------------------------------------------------

---Makes a plain table of checked options, and sees that OpenSSL takes it. Waits.
---@param opts table
---@return table
function M.plain(opts)
  local plain = load(opts)
  M.native(plain)
  return plain
end

local default -- the plain table of clients without options

---The plain table for checked options of a connection: `context`'s, one of its own if an option of contexts is
---among them, or the one that all others share. Waits.
---@param opts table
---@param server boolean
---@return table
function M.of(opts, server)
  if opts.context then
    return opts.context:plain_table()
  end
  local own
  for name in pairs(M.options) do
    if opts[name] ~= nil and name ~= "alpn" and name ~= "server" then
      own = true
    end
  end
  if own or server then
    return M.plain(setmetatable({ server = server }, { __index = opts }))
  end
  default = default or M.plain {}
  return default
end

---@private
function Context:plain_table()
  return self.plain
end

function M.is_context(v)
  return getmetatable(v) == context_meta, "asynctask.tls.Context"
end

---What many connections share; made once, used by all of them.
---@param opts? asynctask.tls.context_options
---@return asynctask.Task context an `asynctask.tls.Context`; faults with ENOENT and the like for files, EINVAL (with
---`path` and OpenSSL's `reason`) for what is in them
function M.context(opts)
  opts = check.options(opts, 1, "context", M.options)
  M.check(opts, 1, "context")
  return start(function()
    return setmetatable({ plain = M.plain(opts) }, context_meta)
  end)
end

return M
